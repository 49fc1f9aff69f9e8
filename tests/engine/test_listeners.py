"""Opening and closing what accepts clients, and the moments between."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from forwards.engine import listeners
from forwards.engine.listeners import LocalListener
from forwards.engine.relay import Traffic
from forwards.engine.specs import Kind
from forwards.engine.states import State
from tests.engine.rig import ask, client, dynamic, echo, ending, eventually, hold, local, remote, server_spec


@contextlib.contextmanager
def black_hole(fillers: list[tuple[str, int]] | None = None):
    """A port whose connections neither succeed nor fail, until `accept` is called on it.

    `fillers` is given the addresses of those that fill it up.
    """
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            if fillers is not None:
                fillers.append(filler.getsockname())
        yield full


@pytest.mark.parametrize("kind", [local, remote, dynamic])
async def test_port_0_chooses_one_and_tells_which(kind, rig, sshd, destinations) -> None:
    service = await destinations.serve(echo)
    port = await rig.open(server_spec(sshd), dynamic() if kind is dynamic else kind(service.port))

    assert 1024 < port < 65536
    async with client(port):
        await eventually(lambda: kind is dynamic or rig.counters().total == 1)


async def test_localhost_is_listened_on_with_both_addresses(rig, sshd, destinations) -> None:
    service = await destinations.serve(echo)
    port = await rig.open(server_spec(sshd), local(service.port, listen_host="localhost"))

    assert await ask(port, b"four", "127.0.0.1") == b"four"
    assert await ask(port, b"six", "::1") == b"six"


@pytest.mark.parametrize("kind", [Kind.LOCAL, Kind.DYNAMIC])
async def test_a_client_accepted_in_the_moment_of_the_stop_is_cut(kind) -> None:
    forward = dynamic() if kind is Kind.DYNAMIC else local(1)
    traffic = Traffic(client_at_channel=False)
    waiting = asyncio.get_running_loop().create_future()

    async def never() -> object:
        return await waiting

    listener = LocalListener(forward, traffic, never, lambda: None, lambda error: None)
    await listener.open()
    knocking = [asyncio.ensure_future(asyncio.open_connection("127.0.0.1", listener.port)) for _ in range(50)]
    for _ in range(3):
        await asyncio.sleep(0)
    await listener.close()
    for knock in knocking:
        with contextlib.suppress(ConnectionError):
            reader, writer = await knock
            assert await ending(reader) == "reset"
            writer.transport.abort()

    assert traffic.active == 0
    assert len(listener._tasks) == 0
    with socket.socket() as other:
        other.bind(("127.0.0.1", listener.port))


@pytest.mark.parametrize("kind", [local, dynamic])
async def test_more_clients_than_allowed_are_turned_away_and_no_others(
    kind, rig, sshd, destinations, monkeypatch
) -> None:
    monkeypatch.setattr(listeners, "MAX_CLIENTS", 3)
    service = await destinations.serve(echo)
    port = await rig.open(server_spec(sshd), dynamic() if kind is dynamic else local(service.port))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(client(port))
        with contextlib.suppress(ConnectionError):
            async with client(port) as (reader, _):
                assert await ending(reader) == "reset"
    await eventually(lambda: rig.counters().active == 0)
    async with client(port) as (reader, writer):
        writer.write(b"\5\1\0")
        assert await reader.readexactly(2)


async def test_a_stop_while_a_remote_client_is_being_connected_leaves_no_connection(rig, sshd) -> None:
    fillers: list[tuple[str, int]] = []
    with black_hole(fillers) as full:
        forward = remote(full.getsockname()[1])
        port = await rig.open(server_spec(sshd), forward, dynamic(2))
        async with client(port) as (reader, _):
            await eventually(lambda: rig.counters().active == 1)
            rig.want(server_spec(sshd), dynamic(2))
            await rig.reaches(State.STOPPED)
            full.setblocking(False)
            loop = asyncio.get_running_loop()
            peer = fillers[0]
            # Ours may never get in: a socket that is closed while it connects need not have been heard of.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    while peer in fillers:
                        accepted, peer = await loop.sock_accept(full)
                        if peer in fillers:
                            accepted.close()
                with accepted, contextlib.suppress(ConnectionError):
                    accepted.setblocking(False)
                    async with asyncio.timeout(5):
                        assert await loop.sock_recv(accepted, 1) == b""
            assert await ending(reader) in ("eof", "reset")
        await eventually(lambda: rig.channels() == 0)


async def test_a_stop_while_a_channel_opens_closes_the_channel_when_it_comes(rig, sshd) -> None:
    with black_hole() as full:
        port = await rig.open(server_spec(sshd), local(full.getsockname()[1]), dynamic(2))
        async with client(port) as (reader, _):
            await eventually(lambda: rig.channels() == 1)
            rig.want(server_spec(sshd), dynamic(2))
            assert await ending(reader) == "reset"
        for _ in range(3):
            full.settimeout(10)
            accepted, _ = await asyncio.to_thread(full.accept)
            accepted.close()
    await eventually(lambda: rig.channels() == 0)


async def test_a_destination_that_cannot_be_reached_cuts_its_client_and_no_other(rig, own_sshd, destinations) -> None:
    server = own_sshd()
    service = await destinations.serve(hold)
    await rig.open(server_spec(server), local(1), local(service.port, 2), remote(1, 3))
    async with client(await rig.port(2)):
        for number in (1, 3):
            async with client(await rig.port(number)) as (reader, _):
                assert await ending(reader) == ("reset" if number == 1 else "eof")
        assert rig.counters(2).active == 1
    assert server.connections() == 1
    await eventually(lambda: rig.channels() == 0)


async def test_a_remote_port_is_refused_when_it_is_taken_forbidden_or_privileged(rig, own_sshd, destinations) -> None:
    service = await destinations.serve(echo)
    allowed, forbidden = own_sshd(), own_sshd("PermitListen 127.0.0.1:1\n")
    rig.want(
        [server_spec(allowed, 1), server_spec(forbidden, 2)],
        remote(service.port, 1, listen_port=service.port),
        remote(service.port, 2, server_id=2, listen_port=0),
    )
    for number in (1, 2):
        status = await rig.problem("remote_port_refused", number)
        assert status.state is State.FAILED
        assert status.retry_at
    assert (await rig.problem("remote_port_refused", 1)).problem.params["port"] == service.port
