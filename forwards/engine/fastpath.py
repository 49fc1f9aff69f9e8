"""The fast path: channel data of AES-GCM connections, without asyncssh's hands.

A `FastWire` is the transport of one SSH connection. asyncssh stays in charge of everything it is in charge of: key
exchange, host keys, signing in, rekeying, global requests, keepalive. Only messages of our own channels are taken out
of the stream on their way in, and only those are put into it on their way out, in the packet format of RFC 4253, 6,
encrypted as RFC 5647 says. Packets are decrypted in place in the buffer they were read into, and go from there to the
client's socket by one `sendmsg`; the other way round, a client's bytes are read to where their packets will be.

It is used with the asyncssh versions it was checked with, where the names it relies on are as expected, and unless
TUNNELWEB_FAST_PATH is 0. Any other cipher, any compression, and every packet that is not plainly ours goes through
asyncssh.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import asyncssh
from asyncssh.encryption import GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from forwards.engine.channel import Channel
from forwards.engine.gcm import BATCH, BLOCK, INBOUND, INBOUND_VIEW, MANY_PACKETS, ONE_PACKET, TAG, PacketCipher, room
from forwards.engine.sockets import read_on
from forwards.engine.wire import CLOSE, DATA, EOF, OPEN_CONFIRMATION, PACKET_SIZE, SILENT, WINDOW_ADJUST, Sender, Wire

CHECKED_VERSIONS = ("2.24.",)
_CONNECTION_NAMES = (
    "_recv_handler", "_recv_pkthdr", "_recv_encryption", "_recv_seq", "_inpbuf", "_max_recv_pktlen", "_decompressor",
    "_channels", "_send_encryption", "_send_seq", "_compressor", "_kex_complete", "_rekey_bytes", "_rekey_bytes_sent",
    "_rekey_seconds", "_rekey_time", "_auth_complete", "_send_disconnect", "_force_close", "_reset_keepalive_timer",
)  # fmt: skip

_CONFIRMATION = struct.Struct(">III")
# Above this many bytes waiting for the socket, clients are not read from; below the other they are again.
FULL, NOT_FULL = 256 * 1024, 64 * 1024
MOST_BUFFERS = 512
KEEPALIVE_RESET = 0.5


def is_usable() -> bool:
    """Say whether the fast path may be used with the installed asyncssh and the environment."""
    if os.environ.get("TUNNELWEB_FAST_PATH") == "0":
        return False
    return asyncssh.__version__.startswith(CHECKED_VERSIONS) and hasattr(AESGCM, "decrypt_into")


class FastWire(Wire, asyncio.Transport):
    """The socket of one SSH connection, as asyncssh's transport and as the wire of its channels."""

    def __init__(self, conn: Any, sock: socket.socket) -> None:
        Wire.__init__(self, conn)
        extra = {"socket": sock, "sockname": sock.getsockname(), "peername": sock.getpeername()}
        asyncio.Transport.__init__(self, extra)
        self._conn: Any = conn
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._complete = all(hasattr(conn, name) for name in _CONNECTION_NAMES)
        self._partial = b""
        self._out: deque[bytes] = deque()
        self._out_size = 0
        self._flush_due = self._blocked = self._closed = False
        self._waiting: list[Callable[[], None]] = []
        self._keepalive_reset_at = 0.0

    def start(self) -> None:
        """Begin: asyncssh hears of its connection, and reading starts."""
        self._conn.connection_made(self)
        self._loop.add_reader(self._sock.fileno(), self._readable)

    # Receiving

    def _readable(self) -> None:
        have = len(self._partial)
        INBOUND[:have] = self._partial
        try:
            count = self._sock.recv_into(INBOUND_VIEW[have:])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._close(error)
            return
        if not count:
            self._loop.remove_reader(self._sock.fileno())
            self._conn.eof_received()
            return
        self._partial = b""
        try:
            self._take(have + count)
        except asyncssh.DisconnectError as error:
            self._conn._send_disconnect(error.code, error.reason, error.lang)
            self._conn._force_close(error)
        except Exception:
            # asyncssh's own handling of what should not happen: it ends the connection and says why.
            self._conn.internal_error()
        if not self._closed:
            read_on(self._loop, self._sock, self._readable)

    def _take(self, end: int) -> None:
        """Work through the inbound buffer; what is left of it is part of a packet."""
        position = 0
        touched: dict[Channel, None] = {}
        # What is answered meanwhile goes out together at the end.
        self._flush_due = True
        try:
            while position < end and not self._closed:
                cipher = self._receiving()
                if cipher is None:
                    self._hand_over(position, end, touched)
                    return
                length = int.from_bytes(INBOUND_VIEW[position : position + 4])
                stop = position + 4 + length + TAG
                if end - position < 4 + BLOCK or (stop > end and length <= self._conn._max_recv_pktlen):
                    self._partial = bytes(INBOUND_VIEW[position:end])
                    return
                if length > self._conn._max_recv_pktlen or length % BLOCK or not length:
                    self._hand_over(position, end, touched)
                    return
                try:
                    cipher.open_in_place(position, length)
                except InvalidTag:
                    cipher.broken = True
                    self._hand_over(position, stop, touched)
                    return
                if self._is_ours(position, length, touched):
                    self._conn._recv_seq = (self._conn._recv_seq + 1) & 0xFFFFFFFF
                else:
                    cipher.plain = bytes(INBOUND_VIEW[position + 4 : position + 4 + length])
                    self._hand_over(position, stop, touched)
                position = stop
        finally:
            for channel in touched:
                channel.flush()
            self._reset_keepalive()
            self.flush()

    def _receiving(self) -> PacketCipher | None:
        """Return the cipher to decrypt with, None while asyncssh must see every byte."""
        conn = self._conn
        if not self._complete:
            return None
        cipher = conn._recv_encryption
        if type(cipher) is GCMEncryption:
            conn._recv_encryption = cipher = PacketCipher(cipher)
        if type(cipher) is not PacketCipher or conn._inpbuf or conn._decompressor:
            return None
        # asyncssh stops at a packet whose handling takes time; what follows has to wait with it.
        return cipher if conn._recv_handler == conn._recv_pkthdr else None

    def _hand_over(self, start: int, end: int, touched: dict[Channel, None]) -> None:
        for channel in touched:
            channel.flush()
        touched.clear()
        self._conn.data_received(bytes(INBOUND_VIEW[start:end]))

    def _is_ours(self, start: int, length: int, touched: dict[Channel, None]) -> bool:
        """Give a decrypted message to its channel; False for one that is asyncssh's to read (or to find fault with)."""
        kind = INBOUND[start + 5]
        padding = INBOUND[start + 4]
        if not OPEN_CONFIRMATION <= kind <= CLOSE or padding < 4:
            return False
        channel = self._conn._channels.get(int.from_bytes(INBOUND_VIEW[start + 6 : start + 10]))
        if not isinstance(channel, Channel):
            return False
        size = length - padding - 6  # without padding, its length, the type and the channel's number
        if not channel.is_open:
            return kind == OPEN_CONFIRMATION and size == 12 and self._opened(channel, start + 10)
        if kind == DATA:
            if size < 4 or int.from_bytes(INBOUND_VIEW[start + 10 : start + 14]) != size - 4:
                return False
            channel.receive_data(INBOUND_VIEW[start + 14 : start + 10 + size])
            touched[channel] = None
            return True
        if kind == WINDOW_ADJUST and size == 4:
            channel.receive_adjust(int.from_bytes(INBOUND_VIEW[start + 10 : start + 14]))
            return True
        if size == 0 and kind in (EOF, CLOSE):
            channel.flush()
            touched.pop(channel, None)
            channel.receive_eof() if kind == EOF else channel.receive_close()
            return True
        return False

    @staticmethod
    def _opened(channel: Channel, start: int) -> bool:
        send_id, window, packet_size = _CONFIRMATION.unpack_from(INBOUND, start)
        if not channel.is_opening or not packet_size:
            return False
        channel.confirmed(send_id, window, packet_size)
        return True

    def _reset_keepalive(self) -> None:
        now = self._loop.time()
        if self._complete and now - self._keepalive_reset_at > KEEPALIVE_RESET and not self._closed:
            self._keepalive_reset_at = now
            self._conn._reset_keepalive_timer()

    # Sending

    def _sending(self) -> PacketCipher | None:
        """Return the cipher to encrypt with; None while asyncssh must do it: in a key exchange, or when one is due."""
        conn = self._conn
        if not self._complete:
            return None
        cipher = conn._send_encryption
        if type(cipher) is GCMEncryption:
            conn._send_encryption = cipher = PacketCipher(cipher)
        if type(cipher) is not PacketCipher or conn._compressor or not conn._kex_complete or not conn._auth_complete:
            return None
        if conn._rekey_bytes_sent >= conn._rekey_bytes:
            return None
        return None if conn._rekey_seconds and time.monotonic() >= conn._rekey_time else cipher

    def _sent(self, packets: int, length: int) -> None:
        self._conn._send_seq = (self._conn._send_seq + packets) & 0xFFFFFFFF
        self._conn._rekey_bytes_sent += length

    def send(self, kind: int, payload: bytes) -> None:
        cipher = self._sending()
        if cipher is None:
            self._conn.send_packet(kind, payload, handler=SILENT)
            return
        packet, length = cipher.seal_message(kind, payload)
        self._sent(1, length)
        self.write(packet)

    def pump(self, sock: socket.socket, channel: Sender) -> int:
        cipher = self._sending()
        if cipher is None or channel.send_packet_size != PACKET_SIZE:
            return super().pump(sock, channel)
        window = channel.send_window
        if not channel.eager:
            count = sock.recv_into(ONE_PACKET[:window] if window < PACKET_SIZE else ONE_PACKET)
        elif window >= BATCH * PACKET_SIZE:
            count = sock.recvmsg_into(MANY_PACKETS)[0]
        else:
            count = sock.recvmsg_into(room(window))[0]
        channel.eager = count >= PACKET_SIZE
        if count:
            packets, length = cipher.seal_data(channel.send_id, count)
            self._sent(len(packets), length)
            self._transmit([*self._out, *packets] if self._out else packets)
        return count

    def write(self, data: Any) -> None:
        """Send what asyncssh or a channel wrote, together with whatever else this turn of the loop brings."""
        if self._closed:
            return
        self._out.append(bytes(data))
        self._out_size += len(data)
        if not self._flush_due and not self._blocked:
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        self._flush_due = False
        if self._out and not self._closed and not self._blocked:
            self._transmit(list(self._out))
        # Also where the socket took all at once: somebody may have come while it was waiting to be sent.
        if self._waiting and self._out_size <= NOT_FULL:
            waiting, self._waiting = self._waiting, []
            for call in waiting:
                call()

    def _transmit(self, buffers: list[bytes | memoryview]) -> None:
        """Send buffers now, as far as the socket takes them; the rest is copied, and waits."""
        sent = 0
        if not self._blocked:
            try:
                sent = self._sock.sendmsg(buffers[:MOST_BUFFERS])
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self._out.clear()
                self._close(error)
                return
        self._out.clear()
        self._out_size = 0
        for buffer in buffers:
            if sent >= len(buffer):
                sent -= len(buffer)
                continue
            rest = bytes(buffer[sent:])
            sent = 0
            self._out.append(rest)
            self._out_size += len(rest)
        if self._out and not self._blocked:
            self._blocked = True
            self._loop.add_writer(self._sock.fileno(), self._writable)

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock.fileno())
        self._blocked = False
        self.flush()

    @property
    def full(self) -> bool:
        return self._out_size > FULL

    def when_writable(self, call: Callable[[], None]) -> None:
        self._waiting.append(call)

    # Ending

    def is_closing(self) -> bool:
        return self._closed

    def get_write_buffer_size(self) -> int:
        return self._out_size

    def close(self) -> None:
        self._close(None)

    def abort(self) -> None:
        self._close(None)

    def _close(self, error: Exception | None) -> None:
        """Close the socket, after one try to send what waits: asyncssh says why it disconnects right before."""
        if self._closed:
            return
        self.flush()
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._out.clear()
        self._waiting.clear()
        self._loop.call_soon(self._conn.connection_lost, error)
