"""One client connection: ends, resets, and what waits where while somebody does not read."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from forwards.engine.relay import Traffic
from forwards.engine.states import Counters
from tests.engine.rig import (
    ask,
    client,
    digest,
    echo,
    ending,
    eventually,
    greet,
    hold,
    local,
    remote,
    reset,
    server_spec,
    source,
)

BOTH_KINDS = pytest.mark.parametrize("kind", [local, remote])
BLOCK = random.Random(2).randbytes(1 << 20)


def held_by(relay) -> int:
    """Return how many bytes wait in this process: for the client's socket, and for the SSH connection's."""
    return sum(map(len, relay._out or ())) + getattr(relay.wire, "get_write_buffer_size", lambda: 0)()


def the_relay(rig):
    (relay,) = rig.supervisor._runners[1][0]._listener._relays
    return relay


async def steady(number, seconds: float = 0.4) -> int:
    """Return `number()` once it has not changed for a while, for things that stop without telling."""
    seen = -1
    while seen != (now := number()):
        seen = now
        await asyncio.sleep(seconds)
    return seen


def test_traffic_is_counted_from_the_clients_side() -> None:
    for at_channel, counters in ((False, Counters(0, 0, 7, 3)), (True, Counters(0, 0, 3, 7))):
        traffic = Traffic(client_at_channel=at_channel)
        traffic.from_channel, traffic.from_socket = 7, 3
        assert traffic.counters() == counters


@BOTH_KINDS
async def test_a_server_may_answer_after_the_client_has_shut_down_writing(kind, rig, sshd, destinations) -> None:
    service = await destinations.serve(digest)
    port = await rig.open(server_spec(sshd), kind(service.port))

    assert (await ask(port, BLOCK)).decode() == hashlib.sha256(BLOCK).hexdigest()


@BOTH_KINDS
async def test_a_client_may_go_on_after_the_server_has_shut_down_writing(kind, rig, sshd, destinations) -> None:
    received = asyncio.get_running_loop().create_future()

    async def half_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"that is all")
        writer.write_eof()
        received.set_result(await reader.read())

    service = await destinations.serve(half_closed)
    port = await rig.open(server_spec(sshd), kind(service.port))
    async with client(port) as (reader, writer):
        assert await reader.read() == b"that is all"
        writer.write(b"I have more")
        await writer.drain()
        writer.write_eof()
        assert await received == b"I have more"
    await eventually(lambda: rig.counters().active == 0 and rig.channels() == 0)


@BOTH_KINDS
async def test_a_server_that_speaks_first_is_heard(kind, rig, sshd, destinations) -> None:
    service = await destinations.serve(greet)
    port = await rig.open(server_spec(sshd), kind(service.port))
    async with client(port) as (reader, _):
        assert await reader.readline() == b"220 hello\r\n"


@BOTH_KINDS
async def test_a_client_that_resets_reaches_the_server_as_an_end(kind, rig, sshd, destinations) -> None:
    service = await destinations.serve(echo)
    port = await rig.open(server_spec(sshd), kind(service.port))
    async with client(port) as (reader, writer):
        writer.write(b"x")
        await reader.readexactly(1)
    await eventually(lambda: service.serving == 0)
    await eventually(lambda: rig.channels() == 0 and rig.counters().active == 0)


@BOTH_KINDS
async def test_a_server_that_resets_reaches_the_client_as_an_end(kind, rig, sshd, destinations) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        reset(writer)

    service = await destinations.serve(cut)
    port = await rig.open(server_spec(sshd), kind(service.port))
    async with client(port) as (reader, writer):
        writer.write(b"xxxx")
        assert await ending(reader) in ("eof", "reset")
    await eventually(lambda: rig.channels() == 0 and rig.counters().active == 0)


@BOTH_KINDS
async def test_clients_that_reset_while_their_channel_opens_leave_none(kind, rig, sshd, destinations) -> None:
    service = await destinations.serve(echo)
    port = await rig.open(server_spec(sshd), kind(service.port))

    async def knock() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        reset(writer)

    await asyncio.gather(*(knock() for _ in range(100)))
    assert await ask(port, b"hello") == b"hello"
    await eventually(lambda: rig.channels() == 0 and rig.counters().active == 0)
    await eventually(lambda: service.serving == 0)


async def test_a_client_that_resets_unnoticed_takes_no_other_with_it(rig, own_sshd, destinations) -> None:
    """Its socket is not being read, as its server takes nothing; then that server ends."""
    server = own_sshd()
    go = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write_eof()
        await hold(reader, writer)

    deaf_service, service = await destinations.serve(deaf), await destinations.serve(echo)
    await rig.open(server_spec(server), local(deaf_service.port), local(service.port, 2))
    async with client(await rig.port(2)) as (reader, writer):
        async with client(await rig.port(1)) as (_, flood):
            for _ in range(40):
                flood.write(BLOCK)
            await eventually(lambda: rig.counters().bytes_out and not the_relay(rig)._reading)
            await steady(lambda: rig.counters().bytes_out)
        go.set()
        await eventually(lambda: rig.counters(1).active == 0)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
    assert server.connections() == 1


@BOTH_KINDS
async def test_a_client_that_reads_nothing_costs_little_memory_and_loses_nothing(kind, rig, sshd, destinations) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _ in range(50):
            writer.write(BLOCK)
            await writer.drain()
            sent += len(BLOCK)

    service = await destinations.serve(flood)
    port = await rig.open(server_spec(sshd), kind(service.port))
    async with client(port) as (reader, writer):
        writer.transport.pause_reading()
        assert await steady(lambda: sent) < 40 << 20
        assert held_by(the_relay(rig)) < 4 << 20
        writer.transport.resume_reading()
        seen = hashlib.sha256()
        while data := await reader.read(1 << 20):
            seen.update(data)
    assert seen.hexdigest() == hashlib.sha256(BLOCK * 50).hexdigest()


@BOTH_KINDS
async def test_a_server_that_reads_nothing_costs_little_memory(kind, rig, sshd, destinations) -> None:
    service = await destinations.serve(hold)
    port = await rig.open(server_spec(sshd), kind(service.port))
    async with client(port) as (_, writer):
        writer.write(BLOCK * 50)
        await eventually(lambda: rig.counters().bytes_out)
        assert await steady(lambda: rig.counters().bytes_out) < 40 << 20
        assert held_by(the_relay(rig)) < 4 << 20


async def test_what_a_client_sends_before_its_channel_is_open_waits_in_the_kernel(rig, own_sshd, destinations) -> None:
    server = own_sshd()
    service = await destinations.serve(digest)
    port = await rig.open(server_spec(server), local(service.port))
    server.stop()
    await rig.until(lambda: rig.supervisor._servers[1][0].session is None)
    async with client(port) as (reader, writer):
        writer.write(BLOCK * 20)
        writer.write_eof()
        await steady(writer.transport.get_write_buffer_size)
        assert rig.counters().bytes_out == 0
        server.start()
        rig.supervisor.retry_now()
        assert (await reader.read()).decode() == hashlib.sha256(BLOCK * 20).hexdigest()


async def test_all_that_came_before_the_end_arrives_however_slowly_it_is_read(rig, sshd, destinations) -> None:
    service = await destinations.serve(source(BLOCK * 4))
    port = await rig.open(server_spec(sshd), local(service.port))
    async with client(port) as (reader, writer):
        writer.transport.pause_reading()
        await eventually(lambda: service.accepted and service.serving == 0)
        writer.transport.resume_reading()
        assert await reader.read() == BLOCK * 4
