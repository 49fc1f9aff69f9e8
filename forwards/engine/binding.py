"""Listening sockets on this machine: which addresses, on one port, and who is in the way."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

from forwards.engine import ports
from forwards.engine.errors import EngineError, Retry, listen_error
from forwards.engine.specs import ANY_INTERFACE, ForwardSpec

BACKLOG = 1024
# RFC 6761 gives the name both addresses; not every machine's hosts file does.
_LOCALHOST = [(int(socket.AF_INET), "127.0.0.1"), (int(socket.AF_INET6), "::1")]
_TRIES_TO_CHOOSE = 20


async def bind(forward: ForwardSpec) -> list[socket.socket]:
    """Return sockets that listen on every address the listening host stands for, all on one port.

    Raises EngineError; a port in use comes with who holds it, where the system tells, and a free one to take.
    """
    addresses: list[tuple[int, str]] = []
    try:
        addresses = await _addresses(forward.listen_host)
        return bind_all(addresses, forward.listen_port)
    except OSError as error:
        meaning = listen_error(error, forward)
        if meaning.problem.code == "port_in_use":
            meaning = await _port_in_use(forward, addresses)
        raise meaning from None


async def _addresses(host: str) -> list[tuple[int, str]]:
    """Return the address family and address of each socket that listening on `host` takes. Raises OSError."""
    if host.lower() == "localhost":
        return _LOCALHOST
    found = await asyncio.get_running_loop().getaddrinfo(
        None if host == ANY_INTERFACE else host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    addresses = []
    for family, _, _, _, address in found:
        name = str(address[0])
        if family == socket.AF_INET6 and len(address) == 4 and address[3] and "%" not in name:
            name = f"{name}%{address[3]}"
        addresses.append((int(family), name))
    return list(dict.fromkeys(addresses))


def bind_all(addresses: list[tuple[int, str]], port: int) -> list[socket.socket]:
    """Return listening sockets on one port of all `addresses` that this machine has; port 0 means choose one.

    Raises OSError when there is none, or when the port is taken on any of them.
    """
    tries = 1 if port else _TRIES_TO_CHOOSE
    while True:
        try:
            return _bind_all(addresses, port)
        except OSError as error:
            tries -= 1
            # What the system chose for the first address may be taken on the second.
            if error.errno != errno.EADDRINUSE or not tries:
                raise


def _bind_all(addresses: list[tuple[int, str]], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, host in addresses:
            try:
                bound = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:  # a kernel without IPv6
                missing = error
                continue
            sockets.append(bound)
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                bound.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                # IPv6 switched off; what the machine has of the name is listened on.
                missing = error
                sockets.remove(bound)
                bound.close()
                continue
            bound.listen(BACKLOG)
            port = port or bound.getsockname()[1]
        if not sockets and missing:
            raise missing
    except BaseException:
        for bound in sockets:
            bound.close()
        raise
    return sockets


async def _port_in_use(forward: ForwardSpec, addresses: list[tuple[int, str]]) -> EngineError:
    """Return the error that names who holds the port, where the system tells."""
    holder = await asyncio.to_thread(ports.holder, forward.listen_port)
    free_port = await asyncio.to_thread(ports.next_free, addresses, forward.listen_port)
    names: dict[str, Any] = {"host": forward.listen_host, "port": forward.listen_port}
    if free_port:
        names["free_port"] = free_port
    if holder is None:
        return EngineError("port_in_use", Retry.SLOWLY, **names)
    if holder.ours:
        return EngineError("port_in_use_ours", Retry.SLOWLY, **names)
    return EngineError("port_in_use_by", Retry.SLOWLY, **names, program=holder.program, pid=holder.pid)
