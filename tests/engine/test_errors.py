from __future__ import annotations

import errno
import socket
from dataclasses import replace

import asyncssh
import pytest
from asyncssh.saslprep import SASLPrepError

from forwards.engine.errors import (
    EngineError,
    Retry,
    clean_text,
    connect_error,
    destination_problem,
    host_key_error,
    jump_error,
    listen_error,
    lost_error,
)
from forwards.engine.hostkeys import HostKeyCheck
from forwards.engine.specs import Auth, ServerSpec, SpecError
from forwards.reasons import sentence
from tests.engine.rig import dynamic, local, remote

SERVER = ServerSpec(1, "My VPS", "vps.example", 22, "me", Auth.KEY_TEXT)
BASTION = replace(SERVER, id=2, name="Bastion")


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (EngineError("agent_empty", Retry.NEVER), "agent_empty", Retry.NEVER),
        (SpecError("key_ppk"), "key_ppk", Retry.NEVER),
        (asyncssh.PermissionDenied("x"), "auth_failed_key", Retry.NEVER),
        (asyncssh.DisconnectError(2, "Too many authentication failures"), "auth_failed_key", Retry.NEVER),
        (asyncssh.HostKeyNotVerifiable("x"), "hostkey_invalid", Retry.NEVER),
        (asyncssh.KeyExchangeFailed("x"), "kex_failed", Retry.NEVER),
        (asyncssh.ProtocolNotSupported("x"), "not_ssh", Retry.SOON),
        (asyncssh.ProtocolError("Unknown version"), "not_ssh", Retry.SOON),
        (asyncssh.IllegalUserName("x"), "user_refused", Retry.NEVER),
        (SASLPrepError("x"), "user_refused", Retry.NEVER),
        (socket.gaierror(-2, "x"), "name_not_found", Retry.SOON),
        (UnicodeError("label empty"), "host_invalid", Retry.NEVER),
        (TimeoutError(), "timeout", Retry.SOON),
        (ConnectionRefusedError(), "refused", Retry.SOON),
        (OSError("Multiple exceptions: [Errno 111] Connection refused"), "refused", Retry.SOON),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "unreachable", Retry.SOON),
        (asyncssh.ConnectionLost("gone"), "connection_lost", Retry.SOON),
        (asyncssh.ProtocolError("Bad packet"), "connection_lost", Retry.SOON),
        (AssertionError(), "internal", Retry.SLOWLY),
    ],
)
def test_every_failure_to_connect_has_its_reason_and_its_retry(error, code, retry) -> None:
    meaning = connect_error(error, SERVER)

    assert (meaning.problem.code, meaning.retry) == (code, retry)
    assert "Something went wrong" not in sentence(code, meaning.problem.params) or code == "agent_empty"


@pytest.mark.parametrize(("auth", "code"), [(Auth.PASSWORD, "password"), (Auth.AGENT, "agent"), (Auth.KEY_FILE, "key")])
def test_a_refused_sign_in_names_what_was_refused(auth, code) -> None:
    meaning = connect_error(asyncssh.PermissionDenied("x"), replace(SERVER, auth=auth))

    assert meaning.problem.code == f"auth_failed_{code}"


def test_no_key_was_refused_when_none_was_presented() -> None:
    assert host_key_error(HostKeyCheck(()), SERVER) is None


def test_words_of_a_server_lose_what_could_hurt_a_page_or_a_log() -> None:
    assert clean_text("a\x1b[31m\n\tb\u202e.") == "a [31m b"
    assert len(clean_text("x" * 10**6)) == 200
    lost = lost_error(asyncssh.DisconnectError(11, "<b>\0bye\r\n"), SERVER)
    assert lost.problem.params["detail"] == "<b> bye"


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (None, "connection_lost", "the server closed it"),
        (asyncssh.ConnectionLost("Server not responding to keepalive"), "keepalive_lost", None),
        (OSError(errno.ECONNRESET, "Connection reset by peer"), "connection_lost", "Connection reset by peer"),
        (ValueError("odd"), "connection_lost", "odd"),
    ],
)
def test_every_loss_has_its_reason(error, code, detail) -> None:
    problem = lost_error(error, SERVER).problem

    assert (problem.code, problem.params.get("detail")) == (code, detail)
    assert sentence(code, problem.params)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "x"), "jump_forbidden"),
        (asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "x"), "jump_cannot_reach"),
        (asyncssh.PermissionDenied("x"), "auth_failed_key"),
    ],
)
def test_a_jump_host_that_carries_nothing_is_told_from_the_server_behind_it(error, code) -> None:
    problem = jump_error(error, SERVER, BASTION).problem

    assert problem.code == code
    assert sentence(code, problem.params)


@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (OSError(errno.EADDRINUSE, "x"), "port_in_use", Retry.SLOWLY),
        (OSError(errno.EACCES, "x"), "port_privileged", Retry.NEVER),
        (OSError(errno.EADDRNOTAVAIL, "x"), "bind_address", Retry.SLOWLY),
        (socket.gaierror(-2, "x"), "bind_address", Retry.SLOWLY),
        (OSError(errno.EMFILE, "Too many open files"), "listen_failed", Retry.SLOWLY),
    ],
)
def test_every_failure_to_listen_has_its_reason_and_its_retry(error, code, retry) -> None:
    meaning = listen_error(error, local(1, listen_port=80))

    assert (meaning.problem.code, meaning.retry) == (code, retry)
    assert sentence(code, meaning.problem.params)


FORBIDDEN = asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed")


@pytest.mark.parametrize(
    ("forward", "error", "code"),
    [
        (local(80), FORBIDDEN, "forwarding_forbidden"),
        (dynamic(), FORBIDDEN, "forwarding_forbidden"),
        (local(80), asyncssh.ChannelOpenError(2, "Connection refused"), "dest_refused"),
        (local(80), asyncssh.ChannelOpenError(2, "Connection timed out"), "dest_timeout"),
        (local(80), asyncssh.ChannelOpenError(2, "Name or service not known"), "dest_unreachable"),
        (local(80), asyncssh.ChannelOpenError(2, ""), "dest_unreachable"),
        (local(80), TimeoutError(), "dest_timeout"),
        (remote(80), ConnectionRefusedError(), "dest_refused_here"),
        (remote(80), TimeoutError(), "dest_timeout"),
        (remote(80), socket.gaierror(-2, "Name or service not known"), "dest_unreachable_here"),
        (remote(80), UnicodeError("label too long"), "dest_unreachable_here"),
    ],
)
def test_every_failure_of_a_destination_is_told_from_where_it_is_looked_at(forward, error, code) -> None:
    problem = destination_problem(error, forward, SERVER)

    assert problem.code == code
    assert sentence(code, problem.params)
