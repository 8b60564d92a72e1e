from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigurationError
from serve.server.auth import check_token, read_token
from serve.server.errors import Unauthenticated

TOKEN = "0123456789abcdef-token"


def test_a_file_holds_one_token_and_white_space(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"\n {TOKEN}\r\n")
    assert read_token(file) == TOKEN


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must hold one token of at least 16 visible characters"),
        (b"short", "must hold one token of at least 16 visible characters"),
        (b"two tokens in a file that is long", "must hold one token"),
        ("schlüssel-schlüssel".encode(), "cannot be read: it is not ASCII"),
    ],
)
def test_what_is_no_token_is_refused_and_not_shown(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"--token-file .*{message}") as caught:
        read_token(file)
    assert not content or content.decode() not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--token-file .*absent cannot be read: No such"):
        read_token(tmp_path / "absent")


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
def test_the_token_opens(header: str) -> None:
    check_token(header, TOKEN)


@pytest.mark.parametrize("header", [None, "", TOKEN, f"Basic {TOKEN}", f"Bearer{TOKEN}"])
def test_without_a_bearer_token_the_client_learns_what_to_send(header: str | None) -> None:
    with pytest.raises(Unauthenticated, match="Authorization: Bearer"):
        check_token(header, TOKEN)


@given(st.text(max_size=40).filter(lambda text: text.strip() != TOKEN))
def test_nothing_else_opens(given: str) -> None:
    with pytest.raises(Unauthenticated, match="is not this server's"):
        check_token(f"Bearer {given}", TOKEN)
