"""What is asked once when a forward opens, of servers that allow this and that."""

from __future__ import annotations

import pytest

from forwards.engine.states import Public, State
from tests.engine.rig import ask, dynamic, echo, eventually, local, remote, server_spec
from tests.engine.test_listeners import black_hole


async def told(rig, number: int = 1) -> Public:
    """Return what is known of a remote forward's public address once it was asked."""
    status = await rig.until(lambda: (status := rig.status(number)) and status.public and status)
    return status.public


@pytest.mark.parametrize("kind", [local, remote])
async def test_a_destination_that_answers_gets_no_warning(kind, rig, sshd, destinations) -> None:
    service = await destinations.serve(echo)
    await rig.open(server_spec(sshd), kind(service.port, probe=True))
    await eventually(lambda: service.accepted and service.serving == 0)

    assert rig.status().problem is None
    assert rig.counters().total == 0


async def test_without_a_probe_nothing_reaches_the_destination(rig, sshd, destinations) -> None:
    one, other = await destinations.serve(echo), await destinations.serve(echo)
    await rig.open(server_spec(sshd), local(one.port), local(other.port, 2, probe=True))
    await eventually(lambda: other.accepted)

    assert one.accepted == []


@pytest.mark.parametrize(("kind", "code"), [(local, "dest_refused"), (remote, "dest_refused_here")])
async def test_a_destination_that_refuses_is_a_warning_beside_a_listening_forward(kind, code, rig, sshd) -> None:
    rig.want(server_spec(sshd), kind(1, probe=True))
    status = await rig.problem(code)

    assert (status.state, status.problem.params["dest"]) == (State.LISTENING, "127.0.0.1:1")
    assert status.allocated_port


@pytest.mark.parametrize(("kind", "code"), [(local, "dest_unreachable"), (remote, "dest_unreachable_here")])
async def test_a_destination_whose_name_is_unknown_is_a_warning(kind, code, rig, sshd) -> None:
    rig.want(server_spec(sshd), kind(80, probe=True, dest_host="no-such-host.invalid"))

    assert (await rig.problem(code)).state is State.LISTENING


@pytest.mark.parametrize("kind", [local, remote])
async def test_a_destination_that_says_nothing_is_a_warning(kind, rig, sshd, monkeypatch) -> None:
    monkeypatch.setattr("forwards.engine.probe.DESTINATION_TIMEOUT", 0.3)
    with black_hole() as full:
        rig.want(server_spec(sshd), kind(full.getsockname()[1], probe=True))

        assert (await rig.problem("dest_timeout")).state is State.LISTENING


@pytest.mark.parametrize("rule", ["AllowTcpForwarding no\n", "AllowTcpForwarding remote\n", "PermitOpen none\n"])
@pytest.mark.parametrize("kind", [local, dynamic])
async def test_a_server_that_forbids_the_way_is_a_warning(rule, kind, rig, own_sshd, destinations) -> None:
    service = await destinations.serve(echo)
    forward = dynamic(probe=True) if kind is dynamic else local(service.port, probe=True)
    rig.want(server_spec(own_sshd(rule)), forward)

    assert (await rig.problem("forwarding_forbidden")).state is State.LISTENING


async def test_a_server_that_permits_one_destination_forbids_the_others(rig, own_sshd, destinations) -> None:
    good, bad = await destinations.serve(echo), await destinations.serve(echo)
    server = own_sshd(f"PermitOpen 127.0.0.1:{good.port}\n")
    rig.want(server_spec(server), local(good.port, 1, probe=True), local(bad.port, 2, probe=True))
    await rig.problem("forwarding_forbidden", 2)

    assert await ask(await rig.port(1), b"hello") == b"hello"
    assert rig.status(1).problem is None


@pytest.mark.parametrize("rule", ["no", "yes", "clientspecified"])
async def test_whether_a_port_is_public_is_told_as_it_is(rule, rig, own_sshd, destinations) -> None:
    service = await destinations.serve(echo)
    hosts = ["0.0.0.0", "*", "::", "127.0.0.1", "localhost"]
    forwards = [remote(service.port, number, listen_host=host) for number, host in enumerate(hosts, 1)]
    await rig.open(server_spec(own_sshd(f"GatewayPorts {rule}\n")), *forwards)
    expected = {"no": Public.NO, "yes": Public.YES, "clientspecified": Public.YES}[rule]

    assert await told(rig, 1) is expected
    assert await told(rig, 2) is expected
    # The server keeps "::" to IPv6 then, and of IPv6 its own loopback is all that can be asked for.
    assert await told(rig, 3) is (Public.UNKNOWN if rule == "clientspecified" else expected)
    assert rig.status(4).public is rig.status(5).public is Public.NOT_ASKED
    assert [rig.counters(number).total for number in range(1, 6)] == [0] * 5
    assert service.accepted == []
    # What was asked took nothing from the clients that follow.
    for number in range(1, 6):
        host = "::1" if number == 3 else "127.0.0.1"
        assert await ask(await rig.port(number), b"hello", host) == b"hello"


async def test_a_port_that_somebody_else_answers_is_not_taken_for_public(
    rig, own_sshd, destinations, monkeypatch
) -> None:
    monkeypatch.setattr("forwards.engine.probe.PUBLIC_TIMEOUT", 1.0)
    service = await destinations.serve(echo)
    other = await destinations.serve(echo, "127.0.0.2")
    await rig.open(server_spec(own_sshd()), remote(service.port, listen_host="0.0.0.0", listen_port=other.port))

    assert await told(rig) is Public.NO
    assert await ask(await rig.port(), b"hello") == b"hello"


async def test_a_server_that_forbids_to_ask_leaves_it_unknown(rig, own_sshd, destinations) -> None:
    service = await destinations.serve(echo)
    server = own_sshd("AllowTcpForwarding remote\nGatewayPorts yes\n")
    await rig.open(server_spec(server), remote(service.port, listen_host="0.0.0.0"))

    assert await told(rig) is Public.UNKNOWN
