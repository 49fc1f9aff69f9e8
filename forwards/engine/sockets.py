"""Sockets of our own: non-blocking, and read and written without a transport in between."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

# close() then sends a reset: the peer sees an error, never an end that looks like success.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def reset(sock: socket.socket) -> None:
    """Close a TCP socket at once with a reset instead of an orderly end (RFC 9293, 3.5.3)."""
    # Gone already is what was wanted.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()


def prepare(sock: socket.socket) -> None:
    """Make a connected socket non-blocking, and let it send small packets at once."""
    sock.setblocking(False)
    # A peer that is gone already shows at the first read.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def read_on(loop: asyncio.AbstractEventLoop, sock: socket.socket, readable: Callable[[], None]) -> None:
    """Have `readable` called again, after it has read something, also where the peer has reset the connection since.

    uvloop calls once more after an error and then never again, however much is left to read before the error shows.
    """
    if type(loop).__module__.startswith("uvloop"):
        try:
            sock.getpeername()
        except OSError:
            loop.remove_reader(sock.fileno())
            loop.add_reader(sock.fileno(), readable)


async def connected(host: str, port: int) -> socket.socket:
    """Return a non-blocking socket connected to the first address of `host` that answers. Raises OSError."""
    loop = asyncio.get_running_loop()
    failure: OSError = OSError("no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
            continue
        except BaseException:
            sock.close()
            raise
        prepare(sock)
        return sock
    raise failure
