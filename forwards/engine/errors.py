"""What an exception means: a reason code with parameters, and whether trying again can mend it."""

from __future__ import annotations

import asyncio
import errno
import socket
from enum import Enum
from typing import Any

import asyncssh
from asyncssh.saslprep import SASLPrepError

from forwards.engine.hostkeys import HostKeyCheck, fingerprint
from forwards.engine.specs import Auth, ForwardSpec, ServerSpec, SpecError, join_host_port
from forwards.engine.states import Problem

MAX_DETAIL = 200


class Retry(Enum):
    """NEVER: a person must act. SLOWLY: a person should, but it may mend itself. SOON: time alone mends it."""

    NEVER = "never"
    SLOWLY = "slowly"
    SOON = "soon"


class EngineError(Exception):
    """A failure in the engine's own terms. `presented_key` is a host key that waits for a person's trust."""

    def __init__(self, code: str, retry: Retry, *, presented_key: str = "", **params: str | int) -> None:
        super().__init__(code)
        self.problem = Problem(code, params)
        self.retry = retry
        self.presented_key = presented_key


def clean_text(text: object) -> str:
    """Return text from a server or the system without control characters, cut at MAX_DETAIL characters."""
    printable = "".join(char if char.isprintable() else " " for char in str(text))
    return " ".join(printable.split())[:MAX_DETAIL].rstrip(". ")


def _os_detail(error: OSError) -> str:
    # asyncio raises one OSError for several addresses, its text a list of theirs.
    return clean_text(error.strerror or error) if error.errno else clean_text(error)


def host_key_error(check: HostKeyCheck, server: ServerSpec) -> EngineError | None:
    """Return the error for a host key that was refused, None when none was."""
    if not check.presented:
        return None
    algorithm = check.presented.partition(" ")[0]
    shown: dict[str, Any] = {"server": server.name, "server_id": server.id, "algorithm": algorithm}
    shown |= {"fingerprint": fingerprint(check.presented), "presented_key": check.presented}
    if not check.knows_another:
        return EngineError("hostkey_unknown", Retry.NEVER, **shown)
    old = ", ".join(fingerprint(key) for key in server.host_keys)
    return EngineError("hostkey_changed", Retry.NEVER, **shown, old_fingerprint=old)


def connect_error(error: BaseException, server: ServerSpec) -> EngineError:
    """Return what a failure to reach a server or to sign in there means."""
    names: dict[str, Any] = {"server": server.name, "user": server.user, "host": server.host, "port": server.port}
    refused = {Auth.PASSWORD: "password", Auth.AGENT: "agent"}.get(server.auth, "key")
    match error:
        case EngineError():
            return error
        case SpecError():
            return EngineError(error.code, Retry.NEVER, **{**names, **error.params})
        case asyncssh.PermissionDenied():
            return EngineError(f"auth_failed_{refused}", Retry.NEVER, **names)
        case asyncssh.DisconnectError() if "authentication failures" in error.reason:
            return EngineError(f"auth_failed_{refused}", Retry.NEVER, **names)
        case asyncssh.HostKeyNotVerifiable():
            return EngineError("hostkey_invalid", Retry.NEVER, **names, detail=clean_text(error))
        case asyncssh.KeyExchangeFailed():
            return EngineError("kex_failed", Retry.NEVER, **names, detail=clean_text(error.reason))
        case asyncssh.ProtocolNotSupported():
            return EngineError("not_ssh", Retry.SOON, **names)
        case asyncssh.ProtocolError() if "version" in error.reason.lower() or "banner" in error.reason.lower():
            return EngineError("not_ssh", Retry.SOON, **names)
        case asyncssh.IllegalUserName() | SASLPrepError():
            return EngineError("user_refused", Retry.NEVER, **names)
        case socket.gaierror():
            return EngineError("name_not_found", Retry.SOON, **names)
        case UnicodeError():
            return EngineError("host_invalid", Retry.NEVER, **names)
        case TimeoutError():
            return EngineError("timeout", Retry.SOON, **names)
        case ConnectionRefusedError():
            return EngineError("refused", Retry.SOON, **names)
        case OSError() if "refused" in str(error):
            # Several addresses, all of them tried: asyncio joins their errors in one text.
            return EngineError("refused", Retry.SOON, **names)
        case asyncssh.DisconnectError():
            return EngineError("connection_lost", Retry.SOON, **names, detail=clean_text(error.reason))
        case OSError():
            return EngineError("unreachable", Retry.SOON, **names, detail=_os_detail(error))
    return EngineError("internal", Retry.SLOWLY, **names, detail=clean_text(type(error).__name__))


def lost_error(error: BaseException | None, server: ServerSpec) -> EngineError:
    """Return why an established connection ended; None means that the server closed it."""
    if isinstance(error, asyncssh.ConnectionLost) and "keepalive" in error.reason:
        return EngineError("keepalive_lost", Retry.SOON, server=server.name)
    if isinstance(error, asyncssh.DisconnectError):
        detail = clean_text(error.reason)
    elif isinstance(error, OSError):
        detail = _os_detail(error)
    else:
        detail = clean_text(error or "the server closed it")
    return EngineError("connection_lost", Retry.SOON, server=server.name, detail=detail)


def jump_error(error: BaseException, server: ServerSpec, jump: ServerSpec) -> EngineError:
    """Return why a jump host did not carry the connection to `server`."""
    names: dict[str, Any] = {"server": server.name, "jump": jump.name, "host": server.host, "port": server.port}
    if isinstance(error, asyncssh.ChannelOpenError):
        forbidden = error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
        return EngineError("jump_forbidden" if forbidden else "jump_cannot_reach", Retry.SOON, **names)
    return connect_error(error, server)


def listen_error(error: OSError, forward: ForwardSpec) -> EngineError:
    """Return why the listening socket of a local or dynamic forward could not be opened."""
    names: dict[str, Any] = {"host": forward.listen_host, "port": forward.listen_port}
    match error.errno:
        case errno.EADDRINUSE:
            return EngineError("port_in_use", Retry.SLOWLY, **names)
        case errno.EACCES | errno.EPERM:
            return EngineError("port_privileged", Retry.NEVER, **names)
        case errno.EADDRNOTAVAIL:
            return EngineError("bind_address", Retry.SLOWLY, **names)
    if isinstance(error, socket.gaierror):
        return EngineError("bind_address", Retry.SLOWLY, **names)
    return EngineError("listen_failed", Retry.SLOWLY, **names, detail=_os_detail(error))


def destination_problem(error: BaseException, forward: ForwardSpec, server: ServerSpec) -> Problem:
    """Return what a failed way to the destination means; the forward stays up with it as a warning."""
    dest = join_host_port(forward.dest_host, forward.dest_port)
    names = {"server": server.name, "dest": dest}
    here = "_here" if forward.listens_on_server else ""
    if isinstance(error, asyncssh.ChannelOpenError):
        if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
            return Problem("forwarding_forbidden", names)
        # OpenSSH says why only in words: "Connection refused", "Name or service not known", "Connection timed out".
        error = OSError(error.reason)
    if isinstance(error, TimeoutError | asyncio.TimeoutError) or "timed out" in str(error):
        return Problem("dest_timeout", names)
    if isinstance(error, ConnectionRefusedError) or "refused" in str(error).lower():
        return Problem(f"dest_refused{here}", names)
    detail = _os_detail(error) if isinstance(error, OSError) else clean_text(error)
    return Problem(f"dest_unreachable{here}", {**names, "detail": detail or "no reason given"})
