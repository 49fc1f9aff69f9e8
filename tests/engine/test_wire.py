"""The plain way to send: windows and packet sizes are kept to, on both ways."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from asyncssh.packet import SSHPacket

from forwards.engine.wire import CLOSE, DATA, SILENT, Wire
from tests.engine.clients import play_all
from tests.engine.fast_rig import forwarding, run
from tests.engine.rig import client, dynamic, eventually
from tests.engine.scripts import Script, expected, stream
from tests.engine.test_fastpath import loops, paths


class Connection:
    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []

    def send_packet(self, kind: int, payload: bytes, handler: Any) -> None:
        assert handler is SILENT
        self.sent.append((kind, payload))


@pytest.fixture
def wire() -> Wire:
    return Wire(Connection())


def sender(window: int, packet: int) -> Any:
    return SimpleNamespace(send_id=7, send_window=window, send_packet_size=packet, eager=False)


@pytest.mark.parametrize(("window", "packet", "read"), [(10, 100, 10), (100, 10, 10), (100, 100, 50), (1, 1, 1)])
def test_no_more_is_read_than_window_and_packet_allow(wire, window, packet, read) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.send(bytes(range(50)))

        assert wire.pump(near, sender(window, packet)) == read
        ((kind, payload),) = wire.conn.sent
        message = SSHPacket(payload)
        assert (kind, message.get_uint32(), message.get_string()) == (DATA, 7, bytes(range(read)))
        assert len(near.recv(100, socket.MSG_DONTWAIT)) == 50 - read if read < 50 else True


def test_the_end_of_a_client_sends_nothing(wire) -> None:
    near, far = socket.socketpair()
    with near:
        far.close()

        assert wire.pump(near, sender(10, 10)) == 0
        assert wire.conn.sent == []


def test_a_client_that_says_nothing_is_not_waited_for(wire) -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)

        with pytest.raises(BlockingIOError):
            wire.pump(near, sender(10, 10))


def test_messages_go_as_they_are(wire) -> None:
    wire.send(CLOSE, b"\0\0\0\7")

    assert wire.conn.sent == [(CLOSE, b"\0\0\0\7")]


def test_asyncssh_takes_everything_at_any_time(wire) -> None:
    called: list[bool] = []
    wire.when_writable(lambda: called.append(True))

    assert called and not wire.full


def test_the_shortest_round_trip_is_remembered(wire) -> None:
    for seconds in (0.3, 0.1, 0.2):
        wire.note_round_trip(seconds)

    assert wire.round_trip == 0.1


@loops
@paths
@pytest.mark.parametrize(("window", "packet"), [(1, 1), (40, 16), (5_000, 32_768), (40_000, 32_769), (70_000, 4_000)])
def test_a_strict_server_finds_nothing_beyond_its_window(loop, fast, window, packet) -> None:
    """asyncssh ends a connection that sends more than it opened its window for."""
    script = Script(up=300 * min(window, 500), echo=True, window=window, packet=packet)

    async def sent() -> None:
        async with forwarding(script, script, fast=fast) as bench:
            assert await play_all(bench) == [expected(number, script)[0] for number in (1, 2)]

    run(loop, sent())


@loops
@paths
@pytest.mark.parametrize("window", [33_000, 65_536, 100_000, 262_144, 290_000])
def test_a_client_with_much_to_say_is_read_no_further_than_the_window(loop, fast, window) -> None:
    async def sent() -> None:
        async with forwarding(Script(echo=True, window=window), fast=fast) as bench:
            bench.held = asyncio.Event()
            async with client(bench.port()) as (reader, writer):
                text = stream(1, 400_000)
                writer.write(text)
                await eventually(lambda: bench.conn._channels)
                bench.held.set()
                writer.write_eof()
                assert await reader.read() == text

    run(loop, sent())


@loops
@paths
@pytest.mark.parametrize("window", [1, 40, 2_000])
def test_what_a_socks_client_sends_too_early_keeps_to_the_window(loop, fast, window) -> None:
    async def early() -> None:
        text = stream(1, 700)
        async with forwarding(Script(echo=True, window=window), fast=fast) as bench:
            await bench.listen(0, lambda number: dynamic())
            async with client(bench.port(2)) as (reader, writer):
                writer.write(b"\5\1\0" + b"\5\1\0\3\4here\0\1" + text)
                writer.write_eof()
                answer = await reader.read()
            assert answer[:4] == b"\5\0\5\0"
            assert answer.endswith(text)
            assert len(answer) == 2 + 10 + len(text)
            await bench.no_channels()
            assert bench.traffic.counters().bytes_out == len(text)

    run(loop, early())
