"""One SSH connection per server: jump hosts, loss, and coming back. Signing in is test_auth's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace

import pytest

from forwards.engine import backoff, connection
from forwards.engine.specs import Auth, ServerSpec
from forwards.engine.states import State
from tests.engine.rig import ask, dynamic, echo, eventually, local, server_spec
from tests.sshd import keygen


@pytest.fixture
async def service(destinations):
    return await destinations.serve(echo)


async def test_a_server_is_reached_through_a_jump_host(rig, own_sshd, service) -> None:
    jump, target = own_sshd(), own_sshd()
    specs = [server_spec(target, 1, proxy_jump=2), server_spec(jump, 2)]
    port = await rig.open(specs, local(service.port))

    assert await ask(port, b"hello") == b"hello"
    assert (jump.connections(), target.connections()) == (1, 1)


async def test_a_server_is_reached_through_two_jump_hosts_and_all_hang_up(rig, own_sshd, service) -> None:
    first, second, target = own_sshd(), own_sshd(), own_sshd()
    specs = [server_spec(target, 1, proxy_jump=2), server_spec(second, 2, proxy_jump=3), server_spec(first, 3)]
    port = await rig.open(specs, local(service.port))
    assert await ask(port, b"hello") == b"hello"
    rig.want(specs)

    await eventually(lambda: first.connections() + second.connections() + target.connections() == 0)


async def test_the_host_key_of_every_hop_is_checked(rig, own_sshd, service) -> None:
    first, second, target = own_sshd(), own_sshd(), own_sshd()
    specs = [server_spec(target, 1, proxy_jump=2), server_spec(second, 2, proxy_jump=3), server_spec(first, 3)]
    for number, hop in ((3, first), (2, second), (1, target)):
        known = [replace(spec, host_keys=()) if spec.id == number else spec for spec in specs]
        rig.want(known, local(service.port, generation=number))
        status = await rig.until(
            lambda n=number: (s := rig.server_status(n)) and s.state is State.FAILED and s.presented_key and s
        )
        assert status.presented_key == hop.public_host_key
        failed = await rig.until(
            lambda n=number: (s := rig.status()) and s.state is State.FAILED and s.generation == n and s
        )
        assert failed.problem.code == ("hostkey_unknown" if number == 1 else "jump_failed")


async def test_what_fails_at_a_jump_host_is_told_as_its_failure(rig, own_sshd, service, tmp_path) -> None:
    jump, target = own_sshd(), own_sshd()
    wrong = keygen(tmp_path / "wrong")
    rig.want(
        [server_spec(target, 1, proxy_jump=2), server_spec(jump, 2, name="Bastion", key_path=str(wrong))],
        local(service.port),
    )
    status = await rig.problem("jump_failed")

    assert status.state is State.FAILED
    assert status.problem.params["jump"] == "Bastion"
    assert status.problem.params["detail_code"] == "auth_failed_key"


async def test_a_jump_host_that_forbids_the_way_is_told_as_such(rig, own_sshd, service) -> None:
    jump, target = own_sshd("AllowTcpForwarding no\n"), own_sshd()
    rig.want([server_spec(target, 1, proxy_jump=2), server_spec(jump, 2)], local(service.port))

    assert (await rig.problem("jump_forbidden")).state is State.RETRYING


async def test_a_jump_host_that_cannot_reach_the_server_is_told_as_such(rig, own_sshd, service) -> None:
    jump, target = own_sshd(), own_sshd()
    target.stop()
    rig.want([server_spec(target, 1, proxy_jump=2), server_spec(jump, 2)], local(service.port))

    assert (await rig.problem("jump_cannot_reach")).state is State.RETRYING


async def test_a_lost_jump_host_brings_all_behind_it_back(rig, own_sshd, service) -> None:
    jump, target = own_sshd(), own_sshd()
    port = await rig.open([server_spec(target, 1, proxy_jump=2), server_spec(jump, 2)], local(service.port))
    jump.kill_sessions()
    await rig.reaches(State.RETRYING)
    await rig.reaches(State.LISTENING)

    assert await ask(port, b"hello") == b"hello"
    await eventually(lambda: target.connections() == 1)


@pytest.mark.parametrize("jumps", [{1: 2, 2: 1}, {1: 1, 2: None}])
async def test_jump_hosts_that_form_a_loop_fail_and_are_never_connected_to_directly(jumps, rig, own_sshd) -> None:
    one, two = own_sshd(), own_sshd()
    rig.want([server_spec(one, 1, proxy_jump=jumps[1]), server_spec(two, 2, proxy_jump=jumps[2])], dynamic())

    assert (await rig.problem("jump_loop")).state is State.FAILED
    assert one.connections() == two.connections() == 0


async def test_a_server_whose_jump_host_is_missing_is_never_connected_to_directly(rig, own_sshd, service) -> None:
    jump, target = own_sshd(), own_sshd()
    rig.want([server_spec(target, 1, proxy_jump=2)], local(service.port))
    assert (await rig.problem("jump_missing")).state is State.FAILED
    assert target.connections() == 0
    rig.want([server_spec(target, 1, proxy_jump=2), server_spec(jump, 2)], local(service.port))

    assert await ask(await rig.port(), b"hello") == b"hello"


async def test_a_server_that_is_stopped_and_started_again_is_found_again(rig, own_sshd, service) -> None:
    server = own_sshd()
    port = await rig.open(server_spec(server), local(service.port))
    server.stop()
    status = await rig.problem("refused")
    assert status.state is State.RETRYING
    assert status.retry_at
    server.start()
    await rig.reaches(State.LISTENING)

    assert await ask(port, b"hello") == b"hello"


async def test_a_server_that_stops_answering_is_noticed(rig, own_sshd, service) -> None:
    server = own_sshd()
    spec = server_spec(server, keepalive_interval=0.3, keepalive_count_max=1, connect_timeout=1)
    await rig.open(spec, local(service.port))
    server.freeze()

    await rig.server_problem("keepalive_lost")


async def test_growing_delays_begin_anew_after_health(rig, own_sshd, service, monkeypatch) -> None:
    server = own_sshd()
    monkeypatch.setattr(connection, "HEALTHY_AFTER", 0.0)
    await rig.open(server_spec(server), local(service.port))
    for _ in range(3):
        rig.server_history.clear()
        server.kill_sessions()
        await rig.until(lambda: rig.server_status() and rig.server_status().state is State.LISTENING)

    assert rig.supervisor._servers[1][0].backoff.attempt == 1
    assert backoff.LONGEST_DELAY == 60


async def test_trying_now_skips_the_delay(rig, own_sshd, service, monkeypatch) -> None:
    server = own_sshd()
    monkeypatch.setattr(connection.Backoff, "next_delay", lambda self: 600.0)
    port = await rig.open(server_spec(server), local(service.port))
    server.kill_sessions()
    await rig.reaches(State.RETRYING)
    rig.supervisor.retry_now()
    await rig.reaches(State.LISTENING)

    assert await ask(port, b"hello") == b"hello"


async def test_at_most_ten_servers_are_signed_in_at_at_a_time(rig, destinations) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    never = await destinations.serve(silent)
    specs = [server_spec_at(never.port, number) for number in range(1, 31)]
    rig.want(specs, *(dynamic(number, server_id=number) for number in range(1, 31)))
    await eventually(lambda: len(never.accepted) >= 10)
    for _ in range(20):
        await asyncio.sleep(0)

    assert len(never.accepted) == 10


def server_spec_at(port: int, number: int = 1, **changes):
    values = {"host": "127.0.0.1", "user": "me", "auth": Auth.PASSWORD, "password": "x", "connect_timeout": 30}
    return ServerSpec(id=number, name="S", port=port, **{**values, **changes})


async def test_a_server_that_never_speaks_times_out(rig, destinations) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        rig.want(server_spec_at(silent.getsockname()[1], connect_timeout=0.3), dynamic())

        assert (await rig.problem("timeout")).state is State.RETRYING


async def test_a_full_backlog_times_out(rig) -> None:
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        rig.want(server_spec_at(full.getsockname()[1], connect_timeout=0.3), dynamic())

        await rig.problem("timeout")


@pytest.mark.parametrize("reset", [False, True])
async def test_what_is_no_ssh_server_is_told_as_such(reset, rig, destinations) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not reset:  # to close with something unread is to reset
            await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n<html>")

    web = await destinations.serve(speak)
    rig.want(server_spec_at(web.port), dynamic())

    assert (await rig.problem("not_ssh")).state is State.RETRYING


async def test_a_refused_port_and_an_unknown_name_are_told(rig) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        rig.want(
            [server_spec_at(unused.getsockname()[1], 1), server_spec_at(22, 2, host="no-such-host.invalid")],
            dynamic(1),
            dynamic(2, server_id=2),
        )
        assert (await rig.problem("refused", 1)).state is State.RETRYING
        assert (await rig.problem("name_not_found", 2)).state is State.RETRYING


async def test_a_server_without_a_common_algorithm_needs_a_person(rig, own_sshd) -> None:
    server = own_sshd("Ciphers aes128-cbc\n")
    rig.want(server_spec(server), dynamic())

    assert (await rig.problem("kex_failed")).state is State.FAILED


async def test_a_server_that_hangs_up_without_a_word_is_tried_again(rig, destinations) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()

    server = await destinations.serve(hang_up)
    rig.want(server_spec_at(server.port), dynamic())

    assert (await rig.reaches(State.RETRYING)).problem.code in ("connection_lost", "unreachable")


async def test_one_login_is_one_attempt_whoever_asks_for_more_meanwhile(
    rig, own_sshd, destinations, tmp_path, monkeypatch
) -> None:
    """Who presses Start while an attempt is under way must not cause a second one with the same bad key."""
    server = own_sshd("LogLevel VERBOSE\n")
    monkeypatch.setattr(connection.Backoff, "next_delay", lambda self: 0.01)
    away, go = True, asyncio.Event()

    async def gate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if away:
            return
        await go.wait()
        inner, outer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pump(reader, outer), pump(inner, writer))

    gateway = await destinations.serve(gate)
    rig.want(server_spec(server, port=gateway.port, key_path=str(keygen(tmp_path / "wrong"))), dynamic())
    await rig.reaches(State.RETRYING)
    away = False
    await eventually(lambda: gateway.serving)
    rig.supervisor.retry_now()
    go.set()
    await rig.reaches(State.FAILED)
    attempts = len(gateway.accepted)
    for _ in range(10):
        await asyncio.sleep(0)

    assert rig.server_status().state is State.FAILED
    assert len(gateway.accepted) == attempts


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    finally:
        writer.close()
