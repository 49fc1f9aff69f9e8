"""What a server must not send ends the connection in order, or does nothing, on both paths alike."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import asyncssh
import pytest
from asyncssh.packet import Boolean, Byte, String, UInt32
from hypothesis import given
from hypothesis import strategies as st

from forwards.engine.wire import (
    CLOSE,
    DATA,
    EOF,
    EXTENDED_DATA,
    FAILURE,
    OPEN_CONFIRMATION,
    REQUEST,
    WINDOW_ADJUST,
)
from tests.engine.fast_rig import Bench, forwarding, run
from tests.engine.rig import Streams, ask, client, eventually
from tests.engine.scripts import Script
from tests.engine.test_fastpath import loops, paths, proven

OPEN_FAILURE = 92
SUCCESS = 99


class Hostile:
    """A server with one open channel that says what no server should. `id` is the client's number of the channel."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.id = UInt32(bench.channel().recv_id or 0)
        self.channel = bench.channel()

    def say(self, kind: int, *payload: bytes) -> None:
        self.bench.server.send_packet(kind, b"".join(payload))

    def seal(self, packet: bytes) -> None:
        """Send a packet as it is: from its padding length to its padding."""
        server = self.bench.server
        sealed, tag = server._send_encryption.encrypt_packet(server._send_seq, UInt32(len(packet)), packet)
        server._send(sealed + tag)
        server._send_seq += 1

    def data(self, text: bytes) -> bytes:
        return Byte(DATA) + self.id + String(text)

    def padded(self, padding: int) -> None:
        """Send data that fills its packet up to a padding of that length."""
        text = bytes(-(10 + padding) % 16)
        self.seal(Byte(padding) + self.data(text) + bytes(padding))


def beyond_the_window(server: Hostile) -> None:
    server.channel.recv_window = 10
    server.say(DATA, server.id, String(bytes(11)))


def a_packet_over_the_maximum(server: Hostile) -> None:
    text = bytes(300_000)
    padding = 4 + -(14 + len(text)) % 16
    server.seal(Byte(padding) + server.data(text) + bytes(padding))


ENDS: dict[str, Callable[[Hostile], None]] = {
    "data beyond the window": beyond_the_window,
    "data longer than its packet": lambda s: s.say(DATA, s.id, UInt32(100), b"short"),
    "data shorter than its packet": lambda s: s.say(DATA, s.id, UInt32(2), b"longer"),
    "data without a length": lambda s: s.say(DATA, s.id, b"\0\0"),
    "data of an unknown channel": lambda s: s.say(DATA, UInt32(77), String(b"whose?")),
    "extended data": lambda s: s.say(EXTENDED_DATA, s.id, UInt32(1), String(b"an error")),
    "an adjust that is too short": lambda s: s.say(WINDOW_ADJUST, s.id, b"\0\0\0"),
    "an adjust that is too long": lambda s: s.say(WINDOW_ADJUST, s.id, bytes(5)),
    "an adjust of an unknown channel": lambda s: s.say(WINDOW_ADJUST, UInt32(77), UInt32(1)),
    "an end with a rest": lambda s: s.say(EOF, s.id, b"rest"),
    "a close with a rest": lambda s: s.say(CLOSE, s.id, b"rest"),
    "a close twice": lambda s: [s.say(CLOSE, s.id), s.say(CLOSE, s.id)],
    "a message without a channel": lambda s: s.say(DATA, b"\0"),
    "a second confirmation": lambda s: s.say(OPEN_CONFIRMATION, s.id, UInt32(0), UInt32(9), UInt32(9)),
    "a confirmation of nothing": lambda s: s.say(OPEN_CONFIRMATION, UInt32(77), UInt32(0), UInt32(9), UInt32(9)),
    "a refusal of what is open": lambda s: s.say(OPEN_FAILURE, s.id, UInt32(1), String("no"), String("en")),
    "a packet over the maximum": a_packet_over_the_maximum,
    "a packet of padding only": lambda s: s.seal(Byte(15) + bytes(15)),
    "no padding": lambda s: s.padded(0),
    "more padding than packet": lambda s: s.seal(Byte(255) + s.data(b"four") + bytes(2)),
    "a key exchange of nonsense": lambda s: s.say(20, bytes(16), b"nonsense"),
}

STAYS: dict[str, Callable[[Hostile], None]] = {
    "adjusts beyond 2^32": lambda s: [s.say(WINDOW_ADJUST, s.id, UInt32(2**32 - 1)) for _ in range(3)],
    "an adjust by nothing": lambda s: s.say(WINDOW_ADJUST, s.id, UInt32(0)),
    "data of no length": lambda s: [s.say(DATA, s.id, String(b"")) for _ in range(3)],
    "an answer nobody asked for": lambda s: [s.say(SUCCESS, s.id), s.say(FAILURE, s.id)],
    "a request that wants none": lambda s: s.say(REQUEST, s.id, String("exit-status"), Boolean(False), UInt32(0)),
    "a message of no known type": lambda s: s.say(200, b"what?"),
    "a length that fills no block": lambda s: s.seal(Byte(4) + s.data(b"") + bytes(4)),
    "little padding": lambda s: s.seal(Byte(6) + Byte(2) + String(b"") + bytes(6)),
}


async def _talking(bench: Bench, streams: Streams) -> Hostile:
    reader, writer = streams
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    return Hostile(bench)


async def _after(fast: bool, act: Callable[[Hostile], Any]) -> BaseException | None:
    """Return why the connection ended after what the server said, which it must; its client must be reset."""
    async with forwarding(Script(echo=True), fast=fast) as bench, client(bench.port()) as streams:
        act(await _talking(bench, streams))
        why = await bench.session.lost
        with pytest.raises(ConnectionError):
            assert await streams[0].read() == b"", "no byte of it may pass"
            # It was closed in order before the connection ended.
            raise ConnectionResetError
        await eventually(lambda: not bench.traffic.active)
        assert not bench.conn._channels
        assert bool(bench.fast_received) is fast
    return why


@loops
@paths
@pytest.mark.parametrize("what", ENDS)
def test_it_ends_the_connection(loop, fast, what) -> None:
    assert run(loop, _after(fast, ENDS[what])) is not None


@loops
@paths
@pytest.mark.parametrize("what", STAYS)
def test_it_does_nothing(loop, fast, what) -> None:
    async def stays() -> None:
        async with forwarding(Script(echo=True), fast=fast) as bench, client(bench.port()) as (reader, writer):
            STAYS[what](await _talking(bench, (reader, writer)))
            writer.write(b"still there?")
            assert await reader.readexactly(12) == b"still there?"
            assert await ask(bench.port(), b"you too?") == b"you too?"
            assert bool(bench.fast_received) is fast

    run(loop, stays())


@loops
@paths
def test_a_request_is_answered_that_it_is_not_known(loop, fast) -> None:
    """OpenSSH asks so whether somebody is still there."""

    async def asked() -> None:
        async with forwarding(Script(echo=True), fast=fast) as bench, client(bench.port()) as streams:
            server = await _talking(bench, streams)
            answer = asyncio.get_running_loop().create_future()
            bench.streams[1].chan._request_waiters.append(answer)
            server.say(REQUEST, server.id, String("keepalive@openssh.com"), Boolean(True))
            assert await answer is False

    run(loop, asked())


@loops
@paths
def test_what_comes_after_an_end_hurts_nobody_else(loop, fast) -> None:
    async def after_the_end() -> None:
        async with forwarding(Script(echo=True), fast=fast) as bench, client(bench.port()) as streams:
            server = await _talking(bench, streams)
            server.say(EOF, server.id)
            server.say(EOF, server.id)
            assert await streams[0].read() == b""
            server.say(DATA, server.id, String(b"more"))
            assert await ask(bench.port(), b"still there?") == b"still there?"

    run(loop, after_the_end())


@loops
@paths
@pytest.mark.parametrize("kind", [DATA, EOF, CLOSE, WINDOW_ADJUST, REQUEST])
def test_nothing_passes_before_a_channel_is_open(loop, fast, kind) -> None:
    rest = {DATA: String(b"early"), WINDOW_ADJUST: UInt32(1), REQUEST: String("x") + Boolean(True)}.get(kind, b"")

    async def early() -> BaseException | None:
        async with forwarding(Script(echo=True), fast=fast) as bench:
            bench.held = asyncio.Event()
            async with client(bench.port()) as (reader, _):
                await eventually(lambda: bench.conn._channels and bench.server._channels)
                bench.server.send_packet(kind, UInt32(bench.channel().recv_id or 0), rest)
                why = await bench.session.lost
                with pytest.raises(ConnectionError):
                    await reader.read()
            await eventually(lambda: not bench.traffic.active)
            bench.held.set()
        return why

    assert isinstance(run(loop, early()), asyncssh.ProtocolError)


@loops
@proven(60)
@given(kind=st.integers(80, 110), rest=st.binary(max_size=40), ours=st.booleans(), sealed=st.binary(min_size=12))
def test_nonsense_never_upsets_the_loop(loop, kind, rest, ours, sealed) -> None:
    """Whether the connection ends or goes on, both paths agree, and nothing is left."""

    async def told(fast: bool, raw: bool) -> bool:
        async with forwarding(Script(echo=True), fast=fast) as bench, client(bench.port()) as streams:
            server = await _talking(bench, streams)
            if raw:
                # A type the key exchange or asyncssh's own ends would take is not what this is about.
                server.seal(sealed[:1] + Byte(kind) + (server.id if ours else b"") + sealed[1:])
            else:
                server.say(kind, server.id if ours else b"", rest)
            # Answered when all before it was heard, or when the connection is over.
            await bench.server._make_global_request(b"ping@example.com")
            if bench.server._transport is None:
                await bench.session.lost
            return bench.session.lost.done()

    for raw in (False, True):
        assert run(loop, told(True, raw)) == run(loop, told(False, raw))


@loops
def test_what_asyncssh_was_left_with_comes_first(loop) -> None:
    """A part of a packet may be all that asyncssh got while it exchanged keys."""

    async def left() -> None:
        async with forwarding(Script(echo=True)) as bench, client(bench.port()) as streams:
            server = await _talking(bench, streams)
            sent: list[bytes] = []
            with patch.object(bench.server, "_send", sent.append):
                for text in (b"one, ", b"two, ", b"three"):
                    server.say(DATA, server.id, String(text))
            packets = b"".join(sent)
            bench.conn._inpbuf = packets[:5]
            bench.server._send(packets[5:])
            assert await streams[0].readexactly(15) == b"one, two, three"

    run(loop, left())


def test_random_bytes_are_no_packet() -> None:
    async def garbage() -> BaseException | None:
        return await _after(True, lambda server: server.bench.server._send(os.urandom(600_000)))

    assert isinstance(run("asyncio", garbage()), asyncssh.MACError | asyncssh.ProtocolError)
