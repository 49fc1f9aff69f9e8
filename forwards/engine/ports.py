"""Local ports: who holds one, and the next that is free."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass

import psutil

from forwards.engine.specs import MAX_PORT


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that listens on a port. `ours` when it is Tunnelweb itself."""

    pid: int
    program: str
    ours: bool


def holder(port: int) -> Holder | None:
    """Return who listens on TCP `port` of this machine, None where the system does not tell (another account's)."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    for connection in connections:
        if connection.status != psutil.CONN_LISTEN or not connection.laddr or connection.laddr.port != port:
            continue
        if connection.pid:
            try:
                program = psutil.Process(connection.pid).name()
            except psutil.Error:
                return None
            return Holder(connection.pid, program, connection.pid == os.getpid())
    return None


def is_free(addresses: list[tuple[int, str]], port: int) -> bool:
    """Say whether `port` can be bound on each of `addresses` (address family, host) now."""
    for family, host in addresses:
        try:
            candidate = socket.socket(family, socket.SOCK_STREAM)
        except OSError:  # a kernel without IPv6
            continue
        with candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                candidate.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                candidate.bind((host, port))
                candidate.listen(1)
            except OSError as error:
                # An address the machine does not have stands in nobody's way.
                if error.errno != errno.EADDRNOTAVAIL:
                    return False
    return True


def next_free(addresses: list[tuple[int, str]], port: int, *, tries: int = 200) -> int | None:
    """Return the first port above `port` that is free on each of `addresses`, None when there is none near."""
    candidates = range(port + 1, min(port + 1 + tries, MAX_PORT + 1))
    return next((candidate for candidate in candidates if is_free(addresses, candidate)), None)
