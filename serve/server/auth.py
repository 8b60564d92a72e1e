"""Bearer tokens (RFC 6750)."""

import hmac
from pathlib import Path

from pipeline.errors import ConfigurationError
from serve.server.errors import Unauthenticated

__all__ = ["check_token", "read_token"]

_SHORTEST = 16


def read_token(path: Path) -> str:
    """Read the token that requests must bring; white space around it does not count.

    Raises:
        ConfigurationError: the file cannot be read, or holds no token that is safe to use.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise ConfigurationError(
            f"--token-file {path} cannot be read: {reason}; give a file with one token"
        ) from error
    if len(token) < _SHORTEST or any(not 0x21 <= ord(character) <= 0x7E for character in token):
        raise ConfigurationError(
            f"--token-file {path} must hold one token of at least {_SHORTEST} visible characters; "
            "make one with: openssl rand -hex 32"
        )
    return token


def check_token(authorization: str | None, token: str) -> None:
    """Check the value of a request's ``Authorization`` header (or gRPC metadata).

    Raises:
        Unauthenticated: it is missing or does not hold the token.
    """
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated(
            "this server wants a token: send the header Authorization: Bearer ..."
        )
    # Bytes, as compare_digest takes no text beyond ASCII.
    if not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise Unauthenticated("the bearer token is not this server's; ask its operator for it")
