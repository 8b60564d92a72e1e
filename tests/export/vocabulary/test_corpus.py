from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.vocabulary.corpus import Corpus
from pipeline.errors import DataError


def read(path: Path) -> list[str]:
    return [text for batch in Corpus(path).batches(lambda share: None) for text in batch]


def write(directory: Path, content: bytes) -> Path:
    path = directory / "corpus.txt"
    path.write_bytes(content)
    return path


def test_a_text_a_line_without_empty_ones(tmp_path: Path):
    content = "\ufeffone two\r\n\n  \nthree\u2028still three\x0cfour\nlast"
    assert read(write(tmp_path, content.encode())) == [
        "one two",
        "three\u2028still three\x0cfour",
        "last",
    ]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\ufeff"), max_size=9)))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, texts: list[str]):
    path = write(tmp_path_factory.mktemp("corpus"), "\n".join(["first", *texts]).encode())
    assert read(path) == ["first", *(text for text in texts if text.strip())]


def test_a_large_file_comes_in_batches_and_says_how_far_it_is(tmp_path: Path):
    lines = [f"text number {index} " + "word " * 100 for index in range(6_000)]
    told: list[str] = []
    corpus = Corpus(write(tmp_path, "\n".join(lines).encode()))
    batches = list(corpus.batches(told.append))
    assert [text for batch in batches for text in batch] == lines
    assert all(sum(len(text) for text in batch) < 3_000_000 for batch in batches)
    assert len(told) >= len(batches) - 1 >= 1
    shares = [int(line.split("%")[0]) for line in told]
    assert shares == sorted(shares)
    assert shares[-1] <= 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no texts; give a text a line"),
        (b"\n \n\r\n", "has no texts; give a text a line"),
        (b"fine\nall\xe9 is not\n", r"line 2 is not UTF-8 .*; save the file as UTF-8"),
        ("text".encode("utf-16"), "line 1 is not UTF-8"),
        (b"short\n" + b"long " * 300_000, "line 2 has more than .* bytes; give a text a line"),
    ],
)
def test_bad_files_end_with_one_line_that_names_the_flag(tmp_path: Path, content: bytes, message):
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path, content))
    assert str(caught.value).startswith(f"--prune-vocabulary {tmp_path / 'corpus.txt'}: ")
    assert "\n" not in str(caught.value)


def test_no_file_and_a_directory(tmp_path: Path):
    with pytest.raises(DataError, match="no such file; give a text file"):
        Corpus(tmp_path / "missing.txt")
    with pytest.raises(DataError, match="is a directory; give a text file"):
        Corpus(tmp_path)
