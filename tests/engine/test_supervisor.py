"""Making what runs equal to what is wanted: starting, stopping, changing, and closing everything."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace

import pytest

from forwards.engine.states import State
from tests.engine.rig import (
    ask,
    client,
    dynamic,
    echo,
    ending,
    eventually,
    local,
    remote,
    server_spec,
    source,
)
from tests.sshd import free_port


async def test_all_forwards_of_a_server_share_one_connection(rig, own_sshd, destinations) -> None:
    server = own_sshd()
    service = await destinations.serve(echo)
    forwards = [local(service.port, 1), local(service.port, 2), remote(service.port, 3), dynamic(4)]
    await rig.open(server_spec(server), *forwards)

    assert server.connections() == 1


async def test_doing_it_twice_does_nothing_and_a_rename_neither(rig, sshd, destinations) -> None:
    service = await destinations.serve(echo)
    server, forward = server_spec(sshd), local(service.port)
    await rig.open(server, forward)
    tasks = [task for _, task in (*rig.supervisor._runners.values(), *rig.supervisor._servers.values())]
    seen = len(rig.history)
    rig.want(server, forward)
    rig.want(replace(server, name="Other"), replace(forward, name="Other"))
    await ask(await rig.port(), b"hello")

    assert [task for _, task in (*rig.supervisor._runners.values(), *rig.supervisor._servers.values())] == tasks
    assert len(rig.history) == seen


async def test_one_forward_that_fails_disturbs_no_other(rig, sshd, destinations) -> None:
    service = await destinations.serve(echo)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        rig.want(server_spec(sshd), local(1, 1, listen_port=taken.getsockname()[1]), local(service.port, 2))
        await rig.reaches(State.FAILED, 1)

        assert await ask(await rig.port(2), b"hello") == b"hello"


async def test_a_changed_forward_is_stopped_and_started(rig, sshd, destinations) -> None:
    one, two = await destinations.serve(source(b"one")), await destinations.serve(source(b"two"))
    listen = free_port()
    port = await rig.open(server_spec(sshd), local(one.port, listen_port=listen))
    assert await ask(port, b"") == b"one"
    rig.history.clear()
    rig.want(server_spec(sshd), local(two.port, listen_port=listen, generation=1))

    assert await ask(await rig.port(), b"") == b"two"
    assert rig.states() == [State.STOPPING, State.STOPPED, State.STARTING, State.LISTENING]
    assert rig.status().generation == 1


@pytest.mark.parametrize("kind", [local, remote])
async def test_two_forwards_swap_their_ports_in_one_step(kind, rig, sshd, destinations) -> None:
    one, two = await destinations.serve(source(b"one")), await destinations.serve(source(b"two"))
    a, b = free_port(), free_port()
    await rig.open(server_spec(sshd), kind(one.port, 1, listen_port=a), kind(two.port, 2, listen_port=b))
    rig.history.clear()
    rig.want(server_spec(sshd), kind(one.port, 1, listen_port=b), kind(two.port, 2, listen_port=a))
    await rig.port(1)
    await rig.port(2)

    assert (await ask(b, b""), await ask(a, b"")) == (b"one", b"two")
    assert State.FAILED not in rig.states(1) + rig.states(2)


async def test_a_forward_wanted_again_while_it_stops_reports_nothing_of_its_former_life_after(
    rig, own_sshd, destinations, monkeypatch
) -> None:
    monkeypatch.setattr("forwards.engine.listeners.CLOSE_TIMEOUT", 0.5)
    server = own_sshd()
    service = await destinations.serve(echo)
    spec, forward = server_spec(server), remote(service.port)
    await rig.open([spec], forward, local(service.port, 2))
    server.freeze()
    rig.want(spec, local(service.port, 2))
    await rig.reaches(State.STOPPING)
    rig.want(spec, forward, local(service.port, 2))
    await rig.reaches(State.STOPPED)
    rig.history.clear()
    await rig.reaches(State.STARTING)

    assert set(rig.states()) == {State.STARTING}


async def test_a_changed_server_restarts_its_forwards_and_no_others(rig, own_sshd, destinations) -> None:
    a, b = own_sshd(), own_sshd()
    service = await destinations.serve(echo)
    specs = [server_spec(a, 1), server_spec(b, 2)]
    await rig.open(specs, local(service.port, 1), local(service.port, 2, server_id=2))
    rig.history.clear()
    rig.want(
        [replace(specs[0], keepalive_interval=7), specs[1]], local(service.port), local(service.port, 2, server_id=2)
    )
    await rig.port(1)

    assert rig.states(1)[0] is State.STOPPING
    assert rig.states(2) == []
    await eventually(lambda: a.connections() == 1)


async def test_a_server_without_forwards_is_disconnected(rig, own_sshd) -> None:
    server = own_sshd()
    await rig.open(server_spec(server), dynamic())
    rig.want(server_spec(server))

    await rig.until(lambda: rig.server_status().state is State.STOPPED)
    await eventually(lambda: server.connections() == 0)


@pytest.mark.parametrize("kind", [local, remote])
async def test_stop_cuts_clients_and_frees_the_port_at_once(kind, rig, sshd, destinations) -> None:
    service = await destinations.serve(echo)
    port = await rig.open(server_spec(sshd), kind(service.port), dynamic(2))
    async with client(port) as (reader, writer):
        writer.write(b"hello")
        await reader.readexactly(5)
        rig.want(server_spec(sshd), dynamic(2))
        await rig.reaches(State.STOPPED)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", port))
            other.listen()

        assert await ending(reader) == ("reset" if kind is local else "eof")
    await eventually(lambda: service.serving == 0)


async def test_forwards_come_back_on_their_port_after_the_session_was_killed(rig, own_sshd, destinations) -> None:
    server = own_sshd()
    service = await destinations.serve(echo)
    await rig.open(server_spec(server), local(service.port), remote(service.port, 2, listen_port=free_port()))
    ports = await rig.port(1), await rig.port(2)
    rig.history.clear()
    server.kill_sessions()
    await rig.reaches(State.RETRYING, 1)
    await rig.reaches(State.RETRYING, 2)

    assert (await rig.port(1), await rig.port(2)) == ports
    assert [await ask(port, b"hello") for port in ports] == [b"hello"] * 2


async def test_a_client_that_comes_while_the_server_is_away_waits_for_it(rig, own_sshd, destinations) -> None:
    server = own_sshd()
    service = await destinations.serve(echo)
    port = await rig.open(server_spec(server), local(service.port))
    server.stop()
    await rig.reaches(State.RETRYING)
    async with client(port) as (reader, writer):
        writer.write(b"hello")
        server.start()
        rig.supervisor.retry_now()

        assert await reader.readexactly(5) == b"hello"


@pytest.mark.parametrize("kind", [local, remote])
async def test_a_client_whose_ssh_connection_dies_is_never_told_of_a_success(kind, rig, own_sshd, destinations) -> None:
    server = own_sshd()

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half of it")
        await reader.read()

    service = await destinations.serve(begin)
    port = await rig.open(server_spec(server), kind(service.port))
    async with client(port) as (reader, _):
        await reader.readexactly(10)
        server.kill_sessions()

        # The far end of a remote forward is sshd's own socket, which the kernel closes for it.
        assert await ending(reader) == ("reset" if kind is local else "eof")
    await eventually(lambda: rig.counters().active == 0)
    await eventually(lambda: service.serving == 0)


@pytest.mark.parametrize("frozen", [False, True])
async def test_closing_ends_everything_in_time_even_with_a_frozen_server(frozen, rig, own_sshd, destinations) -> None:
    server = own_sshd()
    service = await destinations.serve(echo)
    before, files = asyncio.all_tasks(), open_files()
    port = await rig.open(server_spec(server), local(service.port), remote(service.port, 2), dynamic(3))
    async with client(port) as (reader, writer), client(await rig.port(2)) as (_, other):
        writer.write(b"hello")
        await reader.readexactly(5)
        other.write(b"hello")
        await eventually(lambda: rig.counters(2).bytes_in == 5)
        if frozen:
            server.freeze()
        began = asyncio.get_running_loop().time()
        await rig.supervisor.close()

        assert asyncio.get_running_loop().time() - began < (8 if frozen else 3)
        assert await ending(reader) == "reset"
    assert {rig.status(number).state for number in (1, 2, 3)} == {State.STOPPED}
    assert rig.server_status().state is State.STOPPED
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    server.kill_sessions()  # a frozen one keeps its own connections
    await eventually(lambda: service.serving == 0)
    await eventually(lambda: not asyncio.all_tasks() - before)
    await eventually(lambda: open_files() <= files)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_signing_in_once_tells_how_it_went_and_leaves_nothing(rig, own_sshd) -> None:
    server = own_sshd()
    good = await rig.supervisor.test([server_spec(server)])
    unknown = await rig.supervisor.test([server_spec(server, host_keys=())])
    missing = await rig.supervisor.test([server_spec(server, proxy_jump=7)])

    assert good.problem is None
    assert good.seconds > 0
    assert (unknown.problem.code, unknown.presented_key, unknown.presented_by) == (
        "hostkey_unknown",
        server.public_host_key,
        1,
    )
    assert missing.problem.code == "jump_missing"
    await eventually(lambda: server.connections() == 0)


async def test_signing_in_through_a_jump_host_tells_whose_key_is_not_trusted(rig, own_sshd) -> None:
    jump, target = own_sshd(), own_sshd()
    chain = [server_spec(jump, 2), server_spec(target, 1, proxy_jump=2)]
    assert (await rig.supervisor.test(chain)).problem is None
    first = await rig.supervisor.test([replace(chain[0], host_keys=()), chain[1]])
    last = await rig.supervisor.test([chain[0], replace(chain[1], host_keys=())])

    assert (first.problem.code, first.presented_by, first.presented_key) == ("jump_failed", 2, jump.public_host_key)
    assert (last.problem.code, last.presented_by, last.presented_key) == ("hostkey_unknown", 1, target.public_host_key)


async def test_a_server_that_is_not_known_starts_nothing(rig, sshd) -> None:
    rig.want(server_spec(sshd), dynamic(server_id=9))

    assert rig.supervisor.counters() == {}


async def test_waking_up_tries_nothing_that_waits_for_a_person(rig, sshd) -> None:
    """A laptop that is opened ten times must not burn ten logins."""
    rig.want(server_spec(sshd, host_keys=()), local(1))
    await rig.reaches(State.FAILED)
    connection = rig.supervisor._servers[1][0]
    rig.supervisor.retry_now()
    assert not connection._kick.is_set()
    connection.retry_now()
    assert connection._kick.is_set()
