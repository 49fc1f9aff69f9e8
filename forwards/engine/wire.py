"""How the channels of forwards send over one SSH connection, and learn what it is like.

This is the plain way, through asyncssh's own packets; forwards.engine.fastpath has another for some ciphers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol

import asyncssh
from asyncssh.packet import String, UInt32

# Messages of a channel (RFC 4254, 9)
CHANNEL_OPEN = 90
OPEN_CONFIRMATION = 91
WINDOW_ADJUST = 93
DATA = 94
EXTENDED_DATA = 95
EOF = 96
CLOSE = 97
REQUEST = 98
FAILURE = 100

PACKET_SIZE = 32768


class Sender(Protocol):
    """The sending side of a channel. `eager` is the wire's note that the last read filled a packet."""

    send_id: int
    send_window: int
    send_packet_size: int
    eager: bool


class _Silent:
    """Logs no packet: asyncssh formats a line for each, whether or not anybody reads it."""

    def log_sent_packet(self, *args: Any) -> None:
        pass


SILENT: Any = _Silent()


class Wire:
    """One SSH connection as its channels see it. `round_trip` is the shortest seen so far, in seconds."""

    def __init__(self, conn: asyncssh.SSHClientConnection) -> None:
        self.conn = conn
        self.round_trip = 0.0

    @property
    def full(self) -> bool:
        """Whether more data should wait until `when_writable` calls."""
        return False

    def when_writable(self, call: Callable[[], None]) -> None:
        """Have `call` called once when the connection takes data again."""
        call()

    def flush(self) -> None:
        """Send now what would otherwise wait for the end of this turn of the loop."""

    def note_round_trip(self, seconds: float) -> None:
        """Learn from one question and its answer; what the server did meanwhile only makes it longer."""
        if not self.round_trip or seconds < self.round_trip:
            self.round_trip = seconds

    def send(self, kind: int, payload: bytes) -> None:
        """Send one message of a channel."""
        self.conn.send_packet(kind, payload, handler=SILENT)

    def pump(self, sock: socket.socket, channel: Sender) -> int:
        """Read from a client what the channel's window allows, send it, and return how much it was; 0 means EOF.

        Raises OSError as reading a non-blocking socket does.
        """
        data = sock.recv(min(channel.send_window, channel.send_packet_size))
        if data:
            self.send(DATA, UInt32(channel.send_id) + String(data))
        return len(data)
