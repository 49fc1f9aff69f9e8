"""Signing in, at a real server, with a real agent and a real account's password."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from forwards.engine import auth
from forwards.engine.specs import Auth
from forwards.engine.states import State
from tests.conftest import REPOSITORY
from tests.engine.rig import dynamic, eventually, server_spec
from tests.sshd import Sshd, keygen, running


@pytest.fixture
def agent(tmp_path, monkeypatch) -> Iterator[Path]:
    """A running ssh-agent that holds no key, on a socket of its own."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            assert process.poll() is None
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path
    finally:
        process.terminate()
        process.wait(timeout=10)


def add(key: Path) -> None:
    subprocess.run(["ssh-add", "-q", str(key)], check=True, timeout=60, stderr=subprocess.DEVNULL)


async def code(rig) -> str:
    """Return the reason of a forward that waits for a person."""
    return (await rig.reaches(State.FAILED)).problem.code


async def test_a_pasted_key_signs_in(rig, sshd) -> None:
    await rig.open(server_spec(sshd, auth=Auth.KEY_TEXT, key_path="", key_text=sshd.key.read_text()), dynamic())


async def test_a_locked_key_wants_the_right_passphrase(rig, own_sshd, tmp_path) -> None:
    server = own_sshd()
    locked = keygen(tmp_path / "locked", passphrase="sesame")
    with (server.folder / "authorized_keys").open("a") as keys:
        keys.write(locked.with_suffix(".pub").read_text())
    spec = {"key_path": str(locked)}
    rig.want(server_spec(server, **spec), dynamic())
    assert await code(rig) == "key_passphrase"
    rig.history.clear()
    rig.want(server_spec(server, **spec, passphrase="wrong"), dynamic())
    assert await code(rig) == "key_passphrase_wrong"
    rig.want(server_spec(server, **spec, passphrase="sesame"), dynamic())

    await rig.port()


async def test_a_key_the_server_does_not_know_is_refused(rig, sshd, tmp_path) -> None:
    rig.want(server_spec(sshd, key_path=str(keygen(tmp_path / "other"))), dynamic())

    assert await code(rig) == "auth_failed_key"


async def test_a_fifo_as_key_file_is_refused_at_once(rig, sshd, tmp_path) -> None:
    os.mkfifo(tmp_path / "fifo")
    rig.want(server_spec(sshd, key_path=str(tmp_path / "fifo")), dynamic())

    assert (await rig.problem("key_file_unusable", seconds=5)).state is State.FAILED


async def test_a_pasted_text_that_is_no_key_is_told_apart(rig, sshd) -> None:
    rig.want(server_spec(sshd, auth=Auth.KEY_TEXT, key_text="PuTTY-User-Key-File-3: x"), dynamic())

    assert await code(rig) == "key_ppk"


async def test_lost_secrets_are_told_and_nothing_is_tried(rig, own_sshd) -> None:
    server = own_sshd("LogLevel VERBOSE\n")
    rig.want(server_spec(server, secrets_lost=True), dynamic())

    assert await code(rig) == "secrets_lost"


async def test_a_key_of_the_agent_signs_in(rig, sshd, agent) -> None:
    add(sshd.key)
    await rig.open(server_spec(sshd, auth=Auth.AGENT, key_path=""), dynamic())


async def test_an_agent_whose_keys_are_refused_is_told(rig, sshd, agent, tmp_path) -> None:
    add(keygen(tmp_path / "other"))
    rig.want(server_spec(sshd, auth=Auth.AGENT), dynamic())

    assert await code(rig) == "auth_failed_agent"


async def test_an_agent_with_more_keys_than_the_server_tries_is_told(rig, own_sshd, agent, tmp_path) -> None:
    server = own_sshd("MaxAuthTries 3\n")
    for number in range(5):
        add(keygen(tmp_path / f"{number}"))
    rig.want(server_spec(server, auth=Auth.AGENT), dynamic())

    assert await code(rig) == "auth_failed_agent"


async def test_an_agent_without_keys_is_told(rig, sshd, agent) -> None:
    rig.want(server_spec(sshd, auth=Auth.AGENT), dynamic())

    assert await code(rig) == "agent_empty"


@pytest.mark.parametrize("path", ["", "/no/such/socket"])
async def test_a_missing_agent_is_told(path, rig, sshd, monkeypatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", path)
    rig.want(server_spec(sshd, auth=Auth.AGENT), dynamic())

    assert await code(rig) == "agent_missing"


async def test_an_agent_that_never_answers_is_given_up(rig, sshd, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(auth, "AGENT_TIMEOUT", 0.2)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "dumb"))
    with socket.socket(socket.AF_UNIX) as dumb:
        dumb.bind(str(tmp_path / "dumb"))
        dumb.listen()
        rig.want(server_spec(sshd, auth=Auth.AGENT), dynamic())

        assert await code(rig) == "agent_missing"


async def test_nothing_in_the_home_folder_is_run_or_offered(rig, sshd, agent, tmp_path, monkeypatch) -> None:
    """A key that would be accepted lies in ~/.ssh and in the agent; the one that was chosen is another."""
    add(sshd.key)
    folder = tmp_path / "home" / ".ssh"
    folder.mkdir(parents=True)
    (folder / "id_ed25519").write_bytes(sshd.key.read_bytes())
    (folder / "id_ed25519").chmod(0o600)
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {sshd.public_host_key}\n")
    ran = tmp_path / "ran"
    (folder / "config").write_text(
        f'Match exec "touch {ran}"\nHost *\n  ProxyCommand touch {ran}\n  IdentityFile {sshd.key}\n  User root\n'
    )
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    rig.want(server_spec(sshd, key_path=str(keygen(tmp_path / "other"))), dynamic())
    assert await code(rig) == "auth_failed_key"
    rig.history.clear()
    rig.want(server_spec(sshd, host_keys=()), dynamic())
    assert await code(rig) == "hostkey_unknown"
    rig.history.clear()
    rig.want(server_spec(sshd, auth=Auth.PASSWORD, password="x"), dynamic())
    assert await code(rig) == "auth_failed_password"

    assert not ran.exists()


PASSWORD = "correct horse battery"


@contextlib.contextmanager
def account() -> Iterator[str]:
    """A throw-away account of this machine whose password is PASSWORD."""
    name = f"tw{uuid.uuid4().hex[:12]}"
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True, timeout=60)
    try:
        subprocess.run(["chpasswd"], input=f"{name}:{PASSWORD}".encode(), check=True, timeout=60)
        yield name
    finally:
        subprocess.run(["userdel", name], check=True, timeout=60)


def failures(server: Sshd, user: str) -> int:
    return server.log.count(f"Failed password for {user}") + server.log.count(
        f"Failed keyboard-interactive/pam for {user}"
    )


@pytest.mark.parametrize(
    "methods",
    [
        "PasswordAuthentication yes\n",
        "PasswordAuthentication no\nKbdInteractiveAuthentication yes\nUsePAM yes\n",
        "PasswordAuthentication yes\nKbdInteractiveAuthentication yes\nUsePAM yes\n",
    ],
    ids=["password", "interactive", "both"],
)
async def test_a_password_signs_in_and_a_wrong_one_is_tried_exactly_once(methods, rig, request) -> None:
    if os.getuid() != 0:
        # To make an account, and to check its password, takes root.
        command = ["sudo", "-n", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", request.node.nodeid]
        assert subprocess.run(command, cwd=REPOSITORY, timeout=120).returncode == 0
        return
    with account() as user, running(methods + "LogLevel VERBOSE\n") as server:
        spec = {"auth": Auth.PASSWORD, "user": user, "key_path": ""}
        rig.want(server_spec(server, **spec, password="wrong"), dynamic())
        assert await code(rig) == "auth_failed_password"
        await eventually(lambda: server.connections() == 0)
        assert failures(server, user) == 1
        rig.want(server_spec(server, **spec, password=PASSWORD), dynamic())
        await rig.port()
        await rig.close()
        await eventually(lambda: not server.sessions())

        assert failures(server, user) == 1
        assert f"for {user} from" in server.log
