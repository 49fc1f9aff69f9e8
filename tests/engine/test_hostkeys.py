from __future__ import annotations

import subprocess

import asyncssh
import pytest

from forwards.engine.hostkeys import HostKeyCheck, fingerprint, public_text, wanted_algorithms
from forwards.engine.states import State
from tests.engine.rig import dynamic, server_spec
from tests.sshd import keygen, public_key


def printed_fingerprint(key) -> str:
    shown = subprocess.run(["ssh-keygen", "-lf", str(key)], check=True, capture_output=True, text=True, timeout=60)
    return shown.stdout.split()[1]


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_a_fingerprint_reads_as_ssh_keygen_prints_it(kind, tmp_path) -> None:
    key = keygen(tmp_path / "key", kind=kind)

    assert fingerprint(public_key(key)) == printed_fingerprint(key)
    assert public_text(asyncssh.read_private_key(str(key))) == public_key(key)


def test_every_algorithm_is_asked_for_those_of_trusted_keys_first() -> None:
    assert wanted_algorithms(())[0] == "ssh-ed25519"
    assert wanted_algorithms(("ssh-rsa AAAA",))[:3] == ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519"]
    assert sorted(wanted_algorithms(("ssh-rsa AAAA",))) == sorted(wanted_algorithms(()))
    assert "ssh-rsa" not in wanted_algorithms(("ssh-rsa AAAA",))
    assert wanted_algorithms(("ssh-dss AAAA",)) == wanted_algorithms(())


def test_only_a_trusted_key_is_accepted_and_a_refused_one_is_shown(tmp_path) -> None:
    mine, other = keygen(tmp_path / "mine"), keygen(tmp_path / "other")
    check = HostKeyCheck((public_key(mine),))

    assert check.accepts(asyncssh.read_private_key(str(mine)))
    assert check.presented == ""
    assert not check.accepts(asyncssh.read_private_key(str(other)))
    assert check.presented == public_key(other)
    assert check.knows_another
    assert not HostKeyCheck(()).knows_another


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
async def test_an_unknown_key_is_shown_and_nothing_is_sent_before_it_is_trusted(kind, rig, own_sshd) -> None:
    server = own_sshd("LogLevel DEBUG1\n", [kind])
    rig.want(server_spec(server, host_keys=()), dynamic())
    status = await rig.problem("hostkey_unknown")

    assert status.state is State.FAILED
    assert status.problem.params["fingerprint"] == printed_fingerprint(server.host_key)
    assert status.problem.params["algorithm"] == server.public_host_key.split()[0]
    assert rig.server_status().presented_key == server.public_host_key
    assert "userauth-request" not in server.log

    rig.want(server_spec(server), dynamic())
    await rig.reaches(State.LISTENING)
    assert "userauth-request" in server.log


@pytest.mark.parametrize("old_kind", ["ed25519", "ecdsa"])
async def test_a_changed_key_of_the_same_or_another_type_shows_both_fingerprints(
    old_kind, rig, own_sshd, tmp_path
) -> None:
    server = own_sshd("LogLevel DEBUG1\n")
    old = keygen(tmp_path / "old", kind=old_kind)
    rig.want(server_spec(server, host_keys=(public_key(old),)), dynamic())
    problem = (await rig.problem("hostkey_changed")).problem

    assert problem.params["old_fingerprint"] == printed_fingerprint(old)
    assert problem.params["fingerprint"] == printed_fingerprint(server.host_key)
    assert "userauth-request" not in server.log


async def test_a_server_with_several_keys_is_met_by_the_one_that_is_trusted(rig, own_sshd) -> None:
    server = own_sshd("", ["ed25519", "ecdsa", "rsa"])
    rig.want(server_spec(server, host_keys=(public_key(server.host_keys[2]),)), dynamic())

    await rig.reaches(State.LISTENING)


async def test_one_of_several_trusted_keys_is_enough(rig, own_sshd, tmp_path) -> None:
    server = own_sshd()
    rig.want(server_spec(server, host_keys=(public_key(keygen(tmp_path / "x")), server.public_host_key)), dynamic())

    await rig.reaches(State.LISTENING)
