"""Forwards of every kind carry bytes, over a real SSH server."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from tests.engine.rig import ask, client, digest, dynamic, echo, eventually, local, remote, server_spec, source

DATA = random.Random(1).randbytes(20 * 1024 * 1024)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize("kind", [local, remote])
async def test_twenty_megabytes_go_each_way_whole_and_are_counted_from_the_clients_side(
    kind, rig, sshd, destinations
) -> None:
    down, up = await destinations.serve(source(DATA)), await destinations.serve(digest)
    await rig.open(server_spec(sshd), kind(down.port), kind(up.port, 2))

    assert hashlib.sha256(await ask(await rig.port(1), b"")).hexdigest() == SHA256
    assert (await ask(await rig.port(2), DATA)).decode() == SHA256
    await eventually(lambda: rig.counters(1).active == rig.counters(2).active == 0)
    assert (rig.counters(1).bytes_in, rig.counters(1).bytes_out) == (len(DATA), 0)
    assert (rig.counters(2).bytes_in, rig.counters(2).bytes_out) == (64, len(DATA))


@pytest.mark.parametrize("kind", [local, remote])
@pytest.mark.parametrize("listen", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("dest", ["127.0.0.1", "127.0.0.3", "::1"])
async def test_both_ends_may_be_ipv4_or_ipv6_and_the_destination_another_host(
    kind, listen, dest, rig, sshd, destinations
) -> None:
    service = await destinations.serve(echo, dest)
    port = await rig.open(server_spec(sshd), kind(service.port, listen_host=listen, dest_host=dest))

    assert await ask(port, b"hello", listen) == b"hello"


@pytest.mark.parametrize("kind", [local, remote, dynamic])
async def test_a_server_is_reached_over_ipv6_too(kind, rig, sshd, destinations) -> None:
    service = await destinations.serve(echo)
    forward = dynamic() if kind is dynamic else kind(service.port)

    assert await rig.open(server_spec(sshd, host="::1"), forward)


async def test_two_hundred_clients_at_once_are_served_and_counted_up_and_down(rig, sshd, destinations) -> None:
    service = await destinations.serve(echo)
    port = await rig.open(server_spec(sshd), local(service.port))

    async def talk(number: int, everybody: asyncio.Barrier) -> bytes:
        async with client(port) as (reader, writer):
            writer.write(b"%d" % number)
            await reader.readexactly(len(str(number)))
            await everybody.wait()
            writer.write_eof()
            return await reader.read()

    everybody = asyncio.Barrier(201)
    talks = [asyncio.ensure_future(talk(number, everybody)) for number in range(200)]
    await eventually(lambda: rig.counters().active == 200)
    await everybody.wait()
    assert await asyncio.gather(*talks) == [b""] * 200
    await eventually(lambda: rig.counters().active == 0)
    assert rig.counters().total == 200
    await eventually(lambda: rig.channels() == 0)
