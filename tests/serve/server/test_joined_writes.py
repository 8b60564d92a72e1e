import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from serve.server.joined_writes import JoinedWrites

Body = Callable[[JoinedWrites, socket.socket], Awaitable[None]]


def run(body: Body, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Run a test with one end of a connection as it is wrapped, and the other as a socket."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setblocking(False)
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
            try:
                await body(JoinedWrites(transport, loop), theirs)
            finally:
                transport.abort()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


loops = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])


@loops
def test_what_is_written_in_one_turn_goes_out_together(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def body(joined: JoinedWrites, theirs: socket.socket) -> None:
        joined.write(b"head ")
        joined.write(b"body")
        with pytest.raises(BlockingIOError):
            theirs.recv(100)
        await asyncio.sleep(0.01)
        assert theirs.recv(100) == b"head body"
        joined.write(b"next")
        await asyncio.sleep(0.01)
        assert theirs.recv(100) == b"next"

    run(body, factory)


@loops
def test_closing_sends_what_was_written(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def body(joined: JoinedWrites, theirs: socket.socket) -> None:
        joined.write(b"last words")
        joined.close()
        assert joined.is_closing()
        await asyncio.sleep(0.01)
        assert theirs.recv(100) == b"last words"
        assert theirs.recv(100) == b""

    run(body, factory)


@loops
def test_a_connection_that_breaks_within_the_turn_is_not_written_to(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def body(joined: JoinedWrites, theirs: socket.socket) -> None:
        failures: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: failures.append(what))
        joined.write(b"too late")
        joined.abort()
        await asyncio.sleep(0.01)
        assert theirs.recv(100) == b""
        assert not failures

    run(body, factory)
