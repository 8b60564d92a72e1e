"""Head and body of an answer in one packet."""

import asyncio
from typing import Any

__all__ = ["JoinedWrites"]


class JoinedWrites:
    """A transport that sends at once what is written to it in one turn of the event loop.

    uvicorn writes an answer's head and body one after the other; each by itself would cost a
    system call, a packet, and a wake-up of the client. All else is the transport's own.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send data at the end of this turn."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        """Send what was written, then close the connection."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        # A transport that is closing may be closed already, and must not be written to.
        if data and not self._transport.is_closing():
            self._transport.write(data)
