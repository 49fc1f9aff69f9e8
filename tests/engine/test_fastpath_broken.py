"""A connection that breaks, or is broken into, ends; and no byte passes that was not sent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import Any

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwards.engine import connection, fastpath
from forwards.engine.fastpath import FULL, FastWire
from forwards.engine.gcm import PacketCipher
from forwards.engine.sockets import reset
from tests.engine.clients import play_all
from tests.engine.fast_rig import forwarding, run
from tests.engine.rig import ask, eventually
from tests.engine.scripts import Outcome, Script, expected
from tests.engine.test_fastpath import loops, paths, proven

# Enough behind any flipped bit for a length that reads too long to be found out.
STREAMS = [Script(up=400_000, down=400_000), Script(up=400_000, echo=True), Script(up=400_000, down=400_000, slow=True)]


async def _broken(fast: bool, direction: str, after: int, bit: int, seed: int) -> BaseException | None:
    async with forwarding(*STREAMS, fast=fast, seed=seed, keepalive_interval=0.3, keepalive_count_max=2) as bench:
        bench.proxy.flip(direction, after, bit)
        got = await play_all(bench)
        assert bench.proxy.flipped.is_set()
        why = await bench.session.lost
        await eventually(lambda: not bench.traffic.active)
        assert not bench.conn._channels
        for number, outcome in enumerate(got, 1):
            assert_nothing_made_up(number, outcome)
        if fast:
            assert type(bench.conn._recv_encryption) is PacketCipher
    return why


def assert_nothing_made_up(number: int, outcome: Outcome) -> None:
    whole = expected(number, STREAMS[number - 1])[0]
    assert whole.got.startswith(outcome.got)
    assert outcome == whole or outcome.end == "reset"


@loops
@proven(150)
@given(
    direction=st.sampled_from(["down", "down", "up"]),
    after=st.one_of(st.integers(0, 200), st.integers(0, 300_000)),
    bit=st.integers(0, 7),
    seed=st.integers(0, 2**32),
)
def test_a_flipped_bit_ends_the_connection(loop, direction, after, bit, seed) -> None:
    why = run(loop, _broken(True, direction, after, bit, seed))

    # What goes up is found out by the server, which may have hung up before it was heard.
    found_here = (asyncssh.MACError, asyncssh.ProtocolError, asyncssh.ConnectionLost)
    found_there = (asyncssh.DisconnectError, ConnectionError)
    assert isinstance(why, found_here if direction == "down" else found_there)


@loops
@paths
@pytest.mark.parametrize("after", [0, 3, 4, 5, 20, 1_000, 100_000])
def test_a_flipped_bit_is_found_out_as_on_the_plain_path(loop, fast, after) -> None:
    """Whether in the length, in what is encrypted, or in the tag."""
    why = run(loop, _broken(fast, "down", after, 0, 5))

    assert isinstance(why, asyncssh.MACError | asyncssh.ProtocolError)


@loops
@paths
def test_a_connection_that_is_cut_resets_its_clients(loop, fast) -> None:
    async def cut() -> None:
        async with forwarding(*STREAMS, fast=fast, seed=1) as bench:
            playing = asyncio.ensure_future(play_all(bench))
            await eventually(lambda: bench.traffic.counters().bytes_in > 100_000)
            await bench.proxy.close()
            for number, outcome in enumerate(await playing, 1):
                assert_nothing_made_up(number, outcome)
            assert isinstance(await bench.session.lost, asyncssh.ConnectionLost | ConnectionError)
            await eventually(lambda: not bench.traffic.active)
            assert not bench.conn._channels

    run(loop, cut())


@loops
@paths
def test_a_server_that_is_gone_while_data_waits_for_it_ends_the_connection(loop, fast) -> None:
    async def gone() -> None:
        async with forwarding(Script(up=400_000, echo=True), fast=fast) as bench:
            assert await play_all(bench) == [expected(1, bench.scripts[0])[0]]
            # Closed with something unread, it resets.
            bench.server._transport.pause_reading()
            bench.conn.send_packet(asyncssh.constants.MSG_IGNORE, bytes(4))
            await asyncio.sleep(0)
            bench.server._transport.abort()
            while not bench.session.lost.done():
                bench.conn.send_packet(asyncssh.constants.MSG_IGNORE, bytes(4))
                await asyncio.sleep(0)
            assert not bench.conn._channels
            with contextlib.suppress(OSError):
                await ask(bench.port(), b"anybody?")

    run(loop, gone())


# The transport alone


class Connection:
    """As much of asyncssh's connection as a transport meets."""

    def __init__(self) -> None:
        self.ends: list[Exception | None] = []
        self.got = b""

    def connection_made(self, transport: FastWire) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        self.got += data

    def eof_received(self) -> None:
        """Some loops read before they write."""

    def connection_lost(self, error: Exception | None) -> None:
        self.ends.append(error)


@contextlib.contextmanager
def transport() -> Any:
    near, far = socket.socketpair()
    near.setblocking(False)
    conn = Connection()
    wire = FastWire(conn, near)
    wire.start()
    with far:
        try:
            yield wire, conn, far
        finally:
            wire.abort()


@loops
def test_a_write_that_fails_ends_the_transport_once(loop) -> None:
    async def fails() -> None:
        with transport() as (wire, conn, far):
            far.close()
            wire.write(b"is anybody there?")
            await eventually(lambda: conn.ends)
            assert [type(end) for end in conn.ends] == [BrokenPipeError]
            assert wire.is_closing()
            wire.write(b"or here?")
            await asyncio.sleep(0)
            assert len(conn.ends) == 1

    run(loop, fails())


@loops
def test_who_waits_for_room_is_called_when_the_buffer_empties(loop) -> None:
    async def empties() -> None:
        for blocked in (False, True):
            with transport() as (wire, _, far):
                far.settimeout(5)
                called = asyncio.Event()
                total = 5 * FULL if blocked else FULL + 1
                if not blocked:
                    wire._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * FULL)
                text = os.urandom(total)
                for start in range(0, total, 5_000):
                    wire.write(text[start : start + 5_000])
                assert wire.full
                assert wire.get_write_buffer_size() == total
                wire.when_writable(called.set)
                loop = asyncio.get_running_loop()
                far.setblocking(False)
                got = b""
                while len(got) < total:
                    got += await loop.sock_recv(far, 65536)
                assert got == text
                await called.wait()
                assert not wire.full

    run(loop, empties())


@loops
def test_what_was_said_last_is_still_sent(loop) -> None:
    async def said() -> None:
        with transport() as (wire, conn, far):
            wire.write(b"good")
            wire.write(b"bye")
            wire.close()
            assert far.recv(100) == b"goodbye"
            assert far.recv(100) == b""
            await asyncio.sleep(0)
            assert conn.ends == [None]

    run(loop, said())


@loops
def test_a_reset_behind_data_is_noticed(loop) -> None:
    """uvloop calls a reader once more after an error, and then never again."""

    async def noticed() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            far = socket.create_connection(server.getsockname())
            near, _ = server.accept()
        near.setblocking(False)
        conn = Connection()
        wire = FastWire(conn, near)
        far.send(b"x" * 1_000)
        reset(far)
        wire.start()
        await eventually(lambda: conn.ends)
        assert (len(conn.got), [type(end) for end in conn.ends]) == (1_000, [ConnectionResetError])

    run(loop, noticed())


@loops
@paths
def test_a_client_that_left_with_much_unread_leaves_no_channel(loop, fast) -> None:
    async def left() -> None:
        # Small packets leave much to read after the first, and a server that is silent gives no other sign.
        async with forwarding(Script(last="server", packet=1_000), fast=fast) as bench:
            bench.held = asyncio.Event()
            with socket.create_connection(("127.0.0.1", bench.port())) as sock:
                await eventually(lambda: bench.conn._channels)
                sock.setblocking(False)
                assert sock.send(bytes(300_000)) > 100_000
                reset(sock)
            bench.held.set()
            await bench.no_channels()

    run(loop, left())


def test_a_socket_is_closed_when_no_connection_can_be_made_of_it(monkeypatch) -> None:
    async def made() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)

        def refuse(*args: Any) -> None:
            raise OSError(errno.ENOTCONN, "gone already")

        monkeypatch.setattr(fastpath.FastWire, "__init__", refuse)
        with pytest.raises(OSError, match="gone already"):
            await connection._FastTunnel().create_connection(Connection, *server.sockets[0].getsockname())
        server.close()

    run("asyncio", made())
