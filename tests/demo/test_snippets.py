import pytest

from demo.snippets import MINIMUM_RATING, Snippet, parse_snippets, with_clear_sentiment
from pipeline.errors import DataError


def test_lines_are_parsed_cleaned_and_labelled() -> None:
    content = "1\t2.5\tAlmodóvar &amp; Co.   shine\r\n1_2\t-0.75\t10 ½ stars.".encode()
    snippets = parse_snippets(content, source="f.txt")
    assert snippets == [Snippet("Almodóvar & Co. shine", 2.5), Snippet("10 ½ stars.", -0.75)]
    assert [snippet.label for snippet in snippets] == ["positive", "negative"]


@pytest.mark.parametrize(
    "line", ["1\tgood\ttext", "1\t5\ttext", "1\tnan\ttext", "1\t2", "1\t2\t \t", "1\t2\t  ", ""]
)
def test_a_malformed_line_is_named(line: str) -> None:
    with pytest.raises(DataError, match=r"f\.txt, line 2: expected 'id<TAB>rating"):
        parse_snippets(f"1\t1\tfine\n{line}\n3\t1\tfine".encode(), source="f.txt")


def test_another_encoding_is_refused() -> None:
    with pytest.raises(DataError, match="expected UTF-8"):
        parse_snippets("1\t1\tclichés".encode("cp1252"), source="f.txt")


def test_ratings_near_zero_have_no_label() -> None:
    ratings = [0.0, MINIMUM_RATING - 0.01, -MINIMUM_RATING + 0.01, MINIMUM_RATING, -MINIMUM_RATING]
    snippets = [Snippet("text", rating) for rating in ratings]
    assert with_clear_sentiment(snippets) == snippets[3:]
