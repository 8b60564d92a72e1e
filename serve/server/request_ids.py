"""Ids by which a request's answer and its line in the log are found."""

import itertools
import re
import secrets

from serve.server.errors import InvalidRequest

__all__ = ["check_request_id", "new_request_id"]

_GIVEN = re.compile(r"[\x21-\x7e]{1,128}")

_prefix = secrets.token_hex(6)
_numbers = itertools.count(1)


def new_request_id() -> str:
    """An id that no other request has."""
    return f"{_prefix}-{next(_numbers)}"


def check_request_id(given: str) -> None:
    """Check an id that a client made.

    Raises:
        InvalidRequest: it is too long, or would not do in a log.
    """
    if not _GIVEN.fullmatch(given):
        raise InvalidRequest("X-Request-ID must be 1 to 128 visible ASCII characters")
