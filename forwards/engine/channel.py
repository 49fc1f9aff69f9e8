"""One SSH channel of a forward (RFC 4254, 5 and 7): opening, windows, data, EOF, close.

It stands in asyncssh's table of channels in place of asyncssh's own, so that a client's bytes pass through as few hands
as can be. What it sends goes by the connection's Wire, which knows a faster way than asyncssh where there is one.
"""

from __future__ import annotations

import time
from typing import Any

import asyncssh
from asyncssh.packet import SSHPacket, String, UInt32

from forwards.engine.wire import (
    CHANNEL_OPEN,
    CLOSE,
    DATA,
    EOF,
    EXTENDED_DATA,
    FAILURE,
    PACKET_SIZE,
    REQUEST,
    WINDOW_ADJUST,
    Wire,
)

FIRST_WINDOW = 2 * 1024 * 1024
LARGEST_WINDOW = 16 * 1024 * 1024
# Below this round trip a larger window only falls out of the processor's cache.
FAR_AWAY = 0.005


class Channel:
    """State of one channel; a subclass says what becomes of it.

    `send_window` is what the peer still takes, `recv_window` what it may still send. `eager` is the wire's note that
    the last read filled a packet, so that more is likely to be waiting.
    """

    __slots__ = (
        "_adjusted_at",
        "_close_sent",
        "_closed",
        "_eof_sent",
        "_open_sent_at",
        "consumed",
        "eager",
        "is_open",
        "recv_id",
        "recv_window",
        "send_id",
        "send_packet_size",
        "send_window",
        "window",
        "wire",
    )

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.recv_id: int | None = None
        self.send_id = 0
        self.send_window = self.send_packet_size = 0
        self.window = self.recv_window = FIRST_WINDOW
        self.consumed = 0
        self.eager = False
        self.is_open = self._eof_sent = self._close_sent = self._closed = False
        self._open_sent_at = self._adjusted_at = 0.0

    # What a subclass answers

    def opened(self) -> None:
        """The channel is open."""

    def refused(self, error: Exception) -> None:
        """The server does not open the channel, or the connection ended before it did."""

    def data(self, data: memoryview | bytes) -> None:
        """Data came; a memoryview is good until `flush` returns."""

    def flush(self) -> None:
        """All data that came together was given to `data`."""

    def ended(self) -> None:
        """The peer sends no more data (EOF)."""

    def window_opened(self) -> None:
        """The peer takes more data than before."""

    def lost(self, error: Exception | None, *, in_order: bool) -> None:
        """The channel is gone: `in_order` when the peer closed it, not when the connection ended."""

    # Sending

    def register(self) -> None:
        """Take a number in asyncssh's table of channels. Raises asyncssh.ChannelOpenError without a connection."""
        self.recv_id = self.wire.conn.add_channel(self)  # type: ignore[arg-type]

    def open_direct(self, host: str, port: int, origin_host: str, origin_port: int) -> None:
        """Ask for a direct-tcpip channel (RFC 4254, 7.2). Raises asyncssh.ChannelOpenError without a connection."""
        self.register()
        self._open_sent_at = time.monotonic()
        self.wire.send(
            CHANNEL_OPEN,
            String(b"direct-tcpip")
            + UInt32(self.recv_id or 0)
            + UInt32(self.window)
            + UInt32(PACKET_SIZE)
            + String(host)
            + UInt32(port)
            + String(origin_host)
            + UInt32(origin_port),
        )

    def send_eof(self) -> None:
        if self.is_open and not self._eof_sent and not self._close_sent:
            self._eof_sent = True
            self.wire.send(EOF, UInt32(self.send_id))

    def close(self) -> None:
        """Send the close, once; the channel is gone when the peer's has come too."""
        if self.is_open and not self._close_sent:
            self._close_sent = True
            self.wire.send(CLOSE, UInt32(self.send_id))

    def delivered(self, count: int) -> None:
        """Note that `count` bytes left for the socket; let the peer send as many again once it is worth a message."""
        self.consumed += count
        if self.consumed * 2 < self.window or self._close_sent or not self.is_open:
            return
        now = time.monotonic()
        grown = self._growth(now)
        self._adjusted_at = now
        self.wire.send(WINDOW_ADJUST, UInt32(self.send_id) + UInt32(self.consumed + grown))
        self.recv_window += self.consumed + grown
        self.window += grown
        self.consumed = 0

    def _growth(self, now: float) -> int:
        """Return by how much the window should grow: it doubles while a round trip takes longer than it lasts."""
        if self.wire.round_trip < FAR_AWAY or self.window >= LARGEST_WINDOW or not self._adjusted_at:
            return 0
        needed = self.consumed / max(now - self._adjusted_at, 1e-6) * self.wire.round_trip
        return self.window if needed * 2 > self.window else 0

    # Receiving, by the Wire or by asyncssh

    def receive_data(self, data: memoryview | bytes) -> None:
        size = len(data)
        if size > self.recv_window:
            raise asyncssh.ProtocolError("Window exceeded")
        self.recv_window -= size
        if self._close_sent:
            return
        self.data(data)

    def receive_adjust(self, count: int) -> None:
        self.send_window += count
        self.window_opened()

    def receive_eof(self) -> None:
        if not self._close_sent:
            self.ended()

    def receive_close(self) -> None:
        self.close()
        self._gone(None, in_order=True)

    def process_open_confirmation(self, send_id: int, window: int, packet_size: int, packet: SSHPacket) -> None:
        if not self.is_opening:
            raise asyncssh.ProtocolError("Channel not being opened")
        self.confirmed(send_id, window, packet_size)

    @property
    def is_opening(self) -> bool:
        """Whether the peer was asked for this channel and has not answered."""
        return self._open_sent_at > 0 and not self.is_open and not self._closed

    def confirmed(self, send_id: int, window: int, packet_size: int) -> None:
        """The peer opened the channel it was asked for (RFC 4254, 5.1)."""
        self.send_id, self.send_window, self.send_packet_size = send_id, window, min(packet_size, PACKET_SIZE)
        self.is_open = True
        self.wire.note_round_trip(time.monotonic() - self._open_sent_at)
        self.opened()

    def process_open(self, send_id: int, window: int, packet_size: int, session: Any) -> None:
        """Take the peer's side of a channel it asks for (forwarded-tcpip); `accept` or `refuse` answers it."""
        self.send_id, self.send_window, self.send_packet_size = send_id, window, min(packet_size, PACKET_SIZE)

    def accept(self) -> None:
        """Open a channel the peer asked for; nothing happens where the connection ended meanwhile."""
        if self.recv_id is not None:
            self.is_open = True
            self.wire.conn.send_channel_open_confirmation(self.send_id, self.recv_id, self.window, PACKET_SIZE)
            self.opened()

    def refuse(self, code: int, reason: str) -> None:
        """Do not open a channel the peer asked for."""
        if self.recv_id is not None:
            self._forget()
            self.wire.conn.send_channel_open_failure(self.send_id, code, reason, "en")

    def process_open_failure(self, code: int, reason: str, lang: str) -> None:
        if not self.is_opening:
            raise asyncssh.ProtocolError("Channel not being opened")
        self._closed = True
        self._forget()
        self.refused(asyncssh.ChannelOpenError(code, reason, lang))

    def process_connection_close(self, error: Exception | None) -> None:
        self._close_sent = True
        if self.is_open:
            self._gone(error, in_order=False)
        else:
            self._forget()
            self.refused(asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "SSH connection closed"))

    def process_packet(self, kind: int, sequence: int, packet: SSHPacket) -> bool:
        """Take one message that asyncssh decoded up to the channel number; False for one that is not known."""
        if not self.is_open:
            raise asyncssh.ProtocolError("Channel not open")
        if kind == DATA:
            data = packet.get_string()
            packet.check_end()
            self.receive_data(data)
            self.flush()
        elif kind == WINDOW_ADJUST:
            count = packet.get_uint32()
            packet.check_end()
            self.receive_adjust(count)
        elif kind == EOF:
            packet.check_end()
            self.receive_eof()
        elif kind == CLOSE:
            packet.check_end()
            self.receive_close()
        elif kind == EXTENDED_DATA:
            raise asyncssh.ProtocolError("Invalid extended data type")
        elif kind == REQUEST:
            # Such as OpenSSH's keepalive: nothing is known, and the answer shows that somebody is there.
            packet.get_string()
            if packet.get_boolean() and not self._close_sent:
                self.wire.send(FAILURE, UInt32(self.send_id))
        else:
            return False
        return True

    def log_received_packet(self, *args: Any) -> None:
        """Log nothing: there may be thousands a second."""

    log_sent_packet = log_received_packet

    def _gone(self, error: Exception | None, *, in_order: bool) -> None:
        if not self._closed:
            self._closed = True
            self._forget()
            self.lost(error, in_order=in_order)

    def _forget(self) -> None:
        if self.recv_id is not None:
            self.wire.conn.remove_channel(self.recv_id)
            self.recv_id = None
