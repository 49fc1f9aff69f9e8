"""One client connection: bytes between a socket and an SSH channel, counted, with backpressure and half-close.

Nothing is read from the socket before its channel is open, so that what a client sends waits in the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

import asyncssh
from asyncssh.connection import SSHConnection

from forwards.engine.states import Counters

# close() then sends a reset: the client sees an error, never an end that looks like success.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Traffic:
    """Counters of one forward. `client_at_channel` says which end the client is at: the channel's for a remote."""

    __slots__ = ("active", "client_at_channel", "from_channel", "from_socket", "total")

    def __init__(self, *, client_at_channel: bool) -> None:
        self.client_at_channel = client_at_channel
        self.active = self.total = self.from_channel = self.from_socket = 0

    def counters(self) -> Counters:
        into_client, out_of_client = self.from_channel, self.from_socket
        if self.client_at_channel:
            into_client, out_of_client = out_of_client, into_client
        return Counters(self.active, self.total, into_client, out_of_client)


def reset(transport: asyncio.Transport) -> None:
    """Close a TCP transport at once with a reset instead of an orderly end (RFC 9293, 3.5.3)."""
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        # Gone already is what was wanted.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


def set_nodelay(transport: asyncio.BaseTransport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        # A peer that is gone already shows at the first read.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class SocketEnd(asyncio.Protocol):
    """The socket's side of a relay. Reads nothing until the relay has a channel."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tcp = cast(asyncio.Transport, transport)
        set_nodelay(tcp)
        tcp.pause_reading()
        self._relay.dialled(tcp)

    def data_received(self, data: bytes) -> None:
        self._relay.from_socket(data)

    def eof_received(self) -> bool:
        self._relay.socket_ended()
        return True

    def pause_writing(self) -> None:
        self._relay.hold_channel()

    def resume_writing(self) -> None:
        self._relay.release_channel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relay.socket_lost(exc)


class Relay(asyncssh.SSHTCPSession[bytes]):
    """Both ends of one client connection; itself the session of the SSH channel.

    `on_end` is called once, when the socket is gone. `transport` is None until a socket is there. `greeting` goes to
    the socket before anything the channel brings: a SOCKS reply, which a fast server's first bytes must not overtake.
    `early` goes to the channel first: what the client sent right behind its SOCKS request.
    """

    def __init__(
        self, traffic: Traffic, on_end: Callable[[Relay], None], *, greeting: bytes = b"", early: bytes = b""
    ) -> None:
        self.transport: asyncio.Transport | None = None
        self._greeting = greeting
        self._early = early
        traffic.from_socket += len(early)
        self._channel: asyncssh.SSHTCPChannel[bytes] | None = None
        self._traffic = traffic
        self._on_end = on_end
        self._channel_eof = False
        self._socket_eof = False
        self._ended = False
        self._held = False
        traffic.active += 1
        traffic.total += 1

    @property
    def joined(self) -> bool:
        """Whether the SSH channel is open."""
        return self._channel is not None

    @property
    def ended(self) -> bool:
        """Whether the relay was cut, or its socket lost."""
        return self._ended

    def adopt(self, transport: asyncio.Transport) -> None:
        """Take over an accepted socket, not reading from it."""
        transport.pause_reading()
        transport.set_protocol(SocketEnd(self))
        self.transport = transport

    def dialled(self, transport: asyncio.Transport) -> None:
        """Take over a socket connected for this relay, which may have been cut meanwhile."""
        self.transport = transport
        if self._ended:
            reset(transport)

    def abort(self) -> None:
        """Cut both ends at once; the client gets a reset."""
        if self.transport is None:
            self._end()
        elif not self._ended:
            reset(self.transport)
        if self._channel:
            self._channel.abort()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._traffic.active -= 1
            self._on_end(self)

    # The socket's side, called by SocketEnd

    def from_socket(self, data: bytes) -> None:
        self._traffic.from_socket += len(data)
        if self._channel is None:
            # uvloop starts reading an accepted socket although connection_made() paused it, so one read may come.
            self._early += data
            if self.transport is not None:
                self.transport.pause_reading()
        elif not self._channel.is_closing():
            self._channel.write(data)

    def socket_ended(self) -> None:
        self._socket_eof = True
        if self._channel is not None:
            if self._channel_eof:
                self._finish()
            else:
                self._channel.write_eof()

    def hold_channel(self) -> None:
        if self._channel is not None:
            self._channel.pause_reading()

    def release_channel(self) -> None:
        if self._channel is not None:
            self._channel.resume_reading()

    def socket_lost(self, exc: Exception | None) -> None:
        if self._channel is not None:
            if exc is None and self._socket_eof:
                self._channel.close()
            else:
                self._channel.abort()
        self._end()

    # The channel's side, called by asyncssh

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        self._channel = chan
        if self._ended or self.transport is None or self.transport.is_closing():
            # The client left while its channel was being opened; nobody else would close the channel.
            chan.abort()
            return
        if self._greeting:
            self.transport.write(self._greeting)
        if self._early:
            early, self._early = self._early, b""
            chan.write(early)
        if self._socket_eof:
            chan.write_eof()
        if not self._held:
            self.transport.resume_reading()

    def data_received(self, data: bytes, datatype: Any = None) -> None:
        self._traffic.from_channel += len(data)
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def eof_received(self) -> bool:
        self._channel_eof = True
        if self._socket_eof:
            self._finish()
        elif self.transport is not None and not self.transport.is_closing():
            try:
                self.transport.write_eof()
            except OSError:
                # The client is gone and nobody had noticed. Raised into asyncssh, it would end the SSH connection.
                self.abort()
        return True

    def pause_writing(self) -> None:
        self._held = True
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._held = False
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        chan, self._channel = self._channel, None
        if self._ended:
            # asyncio's transport cannot be aborted once it is closed.
            return
        if self.transport is None:
            self._end()
        elif exc is not None or chan is None:
            reset(self.transport)
        else:
            # asyncssh does not pass on an EOF whose data was held back when the close came. The two are told apart
            # from an SSH connection that ended in between only once asyncssh has marked that one closed.
            asyncio.get_running_loop().call_soon(self._channel_closed, chan.get_connection())

    def _channel_closed(self, conn: SSHConnection) -> None:
        if self.transport is None or self._ended:
            return
        if conn.is_closed() and not self._channel_eof:
            reset(self.transport)
        else:
            self.transport.close()

    def _finish(self) -> None:
        """Both directions ended in order: flush and close."""
        if self._channel is not None:
            self._channel.close()
        if self.transport is not None:
            self.transport.close()


class Accepted(asyncio.Protocol):
    """A socket just accepted: handed on before anything is read from it."""

    def __init__(self, take: Callable[[asyncio.Transport], None]) -> None:
        self._take = take

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tcp = cast(asyncio.Transport, transport)
        set_nodelay(tcp)
        self._take(tcp)
