"""Sockets of our own, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from forwards.engine.sockets import connected, prepare, read_on, reset


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


async def accepted(server: socket.socket) -> socket.socket:
    async with asyncio.timeout(10):
        return (await asyncio.get_running_loop().sock_accept(server))[0]


async def test_a_reset_is_seen_as_one_and_never_as_an_end() -> None:
    with listening() as server:
        near = await connected(*server.getsockname())
        with await accepted(server) as far:
            near.send(b"what was sent is lost")
            reset(near)
            assert near.fileno() == -1
            with pytest.raises(ConnectionResetError):
                for _ in range(2):
                    await asyncio.get_running_loop().sock_recv(far, 100)


async def test_a_socket_that_is_closed_already_is_reset_in_silence() -> None:
    one, other = socket.socketpair()
    with other:
        one.close()
        reset(one)


async def test_a_prepared_socket_neither_blocks_nor_waits_for_more() -> None:
    with listening() as server, socket.create_connection(server.getsockname()) as near, await accepted(server):
        prepare(near)
        assert not near.getblocking()
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_connected_socket_is_prepared() -> None:
    with listening() as server, await connected(*server.getsockname()) as near, await accepted(server):
        assert not near.getblocking()
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def resolving_to(monkeypatch, *addresses: tuple[str, int]) -> None:
    async def resolve(host: str, port: int, **options: object) -> list[tuple[object, ...]]:
        assert (host, port) == ("somewhere", 80)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    # Not set on the loop: uvloop's takes no attributes.
    class Loop:
        getaddrinfo = staticmethod(resolve)
        sock_connect = asyncio.get_running_loop().sock_connect

    monkeypatch.setattr("forwards.engine.sockets.asyncio.get_running_loop", Loop)


async def test_addresses_are_tried_in_turn(monkeypatch) -> None:
    with listening() as server, listening() as gone:
        refusing = gone.getsockname()
        gone.close()
        with monkeypatch.context() as patched:
            resolving_to(patched, refusing, refusing, server.getsockname())
            near = await connected("somewhere", 80)
        with near, await accepted(server):
            assert near.getpeername() == server.getsockname()


async def test_the_last_failure_is_told_when_no_address_answers(monkeypatch) -> None:
    with listening() as gone:
        refusing = gone.getsockname()
    with monkeypatch.context() as patched:
        resolving_to(patched, refusing, refusing)
        with pytest.raises(ConnectionRefusedError):
            await connected("somewhere", 80)


async def test_a_name_without_addresses_is_an_error(monkeypatch) -> None:
    with monkeypatch.context() as patched:
        resolving_to(patched)
        with pytest.raises(OSError, match="no address"):
            await connected("somewhere", 80)


async def test_who_gives_up_leaves_no_socket() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        # Nobody accepts: what goes beyond the queue is neither refused nor connected.
        waiting = [asyncio.ensure_future(connected(*full.getsockname())) for _ in range(4)]
        done, pending = await asyncio.wait(waiting, timeout=0.2)
        assert pending
        for task in pending:
            task.cancel()
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            if isinstance(outcome, socket.socket):
                outcome.close()
            else:
                assert isinstance(outcome, asyncio.CancelledError)


async def test_a_reset_is_read_up_to() -> None:
    """uvloop calls a reader once more after an error, and then never again."""
    loop = asyncio.get_running_loop()
    seen: list[int] = []
    over = asyncio.Event()
    with listening() as server:
        far = await connected(*server.getsockname())
        with await accepted(server) as near:
            prepare(near)

            def readable() -> None:
                try:
                    seen.append(len(near.recv(1_000)))
                except ConnectionResetError:
                    loop.remove_reader(near.fileno())
                    over.set()
                else:
                    read_on(loop, near, readable)

            far.send(bytes(10_000))
            reset(far)
            loop.add_reader(near.fileno(), readable)
            async with asyncio.timeout(10):
                await over.wait()
            assert seen == [1_000] * 10
