import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.server.errors import InvalidRequest
from serve.server.request_ids import check_request_id, new_request_id

VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)


def test_ids_differ_and_would_be_taken_from_a_client() -> None:
    ids = [new_request_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    for made in ids:
        check_request_id(made)


@given(st.text(VISIBLE, min_size=1, max_size=128))
def test_visible_characters_are_taken(text: str) -> None:
    check_request_id(text)


@given(
    st.text(VISIBLE, min_size=129, max_size=300)
    | st.tuples(st.text(VISIBLE), st.characters(max_codepoint=0x20), st.text(VISIBLE)).map("".join)
    | st.tuples(st.text(VISIBLE), st.characters(min_codepoint=0x7F), st.text(VISIBLE)).map("".join)
    | st.just("")
)
def test_what_would_not_do_in_a_log_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="1 to 128 visible ASCII characters"):
        check_request_id(text)
