"""What becomes of one forward, and what is told of it."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

import pytest

from forwards.engine import runner
from forwards.engine.states import State
from tests.engine.rig import ask, client, dynamic, echo, ending, eventually, local, remote, server_spec
from tests.sshd import free_port, keygen


async def test_a_forward_goes_from_stopped_to_listening_and_back(rig, sshd) -> None:
    await rig.open(server_spec(sshd), dynamic(), dynamic(2))
    rig.want(server_spec(sshd), dynamic(2))
    await rig.reaches(State.STOPPED)

    assert rig.states() == [State.STARTING, State.LISTENING, State.STOPPING, State.STOPPED]


async def test_a_port_in_use_heals_when_it_is_freed(rig, sshd, destinations, monkeypatch) -> None:
    monkeypatch.setattr(runner, "SLOW_RETRY", 0.1)
    service = await destinations.serve(echo)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        rig.want(server_spec(sshd), local(service.port, listen_port=port))
        status = await rig.problem("port_in_use_ours")
        assert status.state is State.FAILED
        assert status.retry_at

    assert await rig.port() == port
    assert await ask(port, b"hello") == b"hello"
    assert rig.status().problem is None


async def test_a_remote_port_in_use_heals_when_it_is_freed(rig, sshd, destinations, monkeypatch) -> None:
    monkeypatch.setattr(runner, "SLOW_RETRY", 0.1)
    service = await destinations.serve(echo)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        rig.want(server_spec(sshd), remote(service.port, listen_port=port))
        assert (await rig.problem("remote_port_refused")).state is State.FAILED

    assert await rig.port() == port


async def test_a_port_below_1024_waits_for_a_person(rig, sshd) -> None:
    user = os.geteuid()
    server = server_spec(sshd)
    rig.want(server, dynamic(2))
    await rig.port(2)
    if user == 0:
        os.seteuid(65534)
    try:
        rig.want(server, dynamic(1, listen_port=81), dynamic(2))
        status = await rig.problem("port_privileged")
    finally:
        os.seteuid(user)

    assert (status.state, status.retry_at) == (State.FAILED, None)
    rig.want(server, dynamic(1, generation=1), dynamic(2))
    await rig.port(1)


@pytest.mark.parametrize("kind", [local, remote])
async def test_clients_teach_whether_the_destination_answers(kind, rig, sshd, destinations) -> None:
    dest = free_port()
    port = await rig.open(server_spec(sshd), kind(dest))
    assert rig.status().problem is None
    async with client(port) as (reader, _):
        await ending(reader)
    warned = await rig.problem("dest_refused" if kind is local else "dest_refused_here")
    assert (warned.state, warned.allocated_port) == (State.LISTENING, port)
    await destinations.serve(echo, port=dest)
    assert await ask(port, b"hello") == b"hello"

    assert rig.status().problem is None
    assert rig.status().allocated_port == port


async def test_one_socks_client_whose_destination_refuses_warns_nobody(rig, sshd) -> None:
    port = await rig.open(server_spec(sshd), dynamic())
    await ask(port, b"\5\1\0\5\1\0\1\x7f\0\0\1\0\1")

    assert rig.status().problem is None


async def test_a_forward_whose_server_needs_a_person_lets_its_clients_go(rig, own_sshd, destinations) -> None:
    server = own_sshd()
    service = await destinations.serve(echo)
    port = await rig.open(server_spec(server), local(service.port))
    (server.folder / "authorized_keys").write_text("")
    server.kill_sessions()
    async with client(port) as (reader, _):
        await rig.problem("auth_failed_key")
        assert await ending(reader) == "reset"
    with pytest.raises(ConnectionRefusedError):
        await ask(port, b"")
    assert rig.status().state is State.FAILED


async def test_a_held_port_stays_ours_while_the_server_is_away(rig, own_sshd, destinations) -> None:
    server = own_sshd()
    service = await destinations.serve(echo)
    port = await rig.open(server_spec(server), local(service.port))
    server.stop()
    await rig.reaches(State.RETRYING)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))


async def test_a_client_waits_only_so_long_for_a_server_that_is_away(rig, own_sshd, destinations, monkeypatch) -> None:
    monkeypatch.setattr(runner, "HOLD_SECONDS", 0.2)
    server = own_sshd()
    service = await destinations.serve(echo)
    port = await rig.open(server_spec(server), local(service.port))
    server.stop()
    await rig.reaches(State.RETRYING)
    async with client(port) as (reader, _):
        assert await ending(reader) == "reset"
    await eventually(lambda: rig.counters().active == 0)


async def test_starting_a_failed_forward_again_tries_its_server_again(rig, own_sshd, tmp_path) -> None:
    server = own_sshd()
    other = keygen(tmp_path / "other")
    spec = server_spec(server, key_path=str(other))
    rig.want(spec, dynamic())
    await rig.problem("auth_failed_key")
    with (server.folder / "authorized_keys").open("a") as keys:
        keys.write(other.with_suffix(".pub").read_text())
    rig.want(spec, replace(dynamic(), generation=1))

    assert (await rig.reaches(State.LISTENING)).generation == 1
