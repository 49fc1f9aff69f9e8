"""AES-GCM packets in buffers (RFC 5647), where they are decrypted and encrypted in place."""

from __future__ import annotations

import os
import struct
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from forwards.engine.wire import DATA, PACKET_SIZE

READ_SIZE = 512 * 1024
TAG = 16
BLOCK = 16
BATCH = 8

_HEADER = struct.Struct(">IBBII")
_IN_PACKET = _HEADER.size
_STRIDE = _IN_PACKET + PACKET_SIZE + 2 * BLOCK + TAG

# What is read and what is written is done with before another connection has its turn, so all share these.
INBOUND = bytearray(READ_SIZE)
INBOUND_VIEW = memoryview(INBOUND)
OUTBOUND = bytearray(BATCH * _STRIDE)
OUTBOUND_VIEW = memoryview(OUTBOUND)
ONE_PACKET = OUTBOUND_VIEW[_IN_PACKET : _IN_PACKET + PACKET_SIZE]
MANY_PACKETS = [
    OUTBOUND_VIEW[number * _STRIDE + _IN_PACKET : number * _STRIDE + _IN_PACKET + PACKET_SIZE]
    for number in range(BATCH)
]


def room(window: int) -> list[memoryview]:
    """Return where to read at most `window` bytes to."""
    whole, rest = divmod(window, PACKET_SIZE)
    return MANY_PACKETS[:whole] + ([MANY_PACKETS[whole][:rest]] if rest else [])


class PacketCipher:
    """AES-GCM of one direction, in place of asyncssh's object: one key schedule, one counter (RFC 5647, 7.1).

    `plain` is a packet the fast path decrypted already and hands to asyncssh; `broken` makes asyncssh see a bad tag.
    """

    def __init__(self, original: Any) -> None:
        self._aead = AESGCM(original._cipher._key)
        self._fixed: bytes = original._cipher._iv[:4]
        self._counter = int.from_bytes(original._cipher._iv[4:])
        self.plain: bytes | None = None
        self.broken = False

    def _nonce(self) -> bytes:
        counter = self._counter
        self._counter = (counter + 1) & 0xFFFFFFFFFFFFFFFF
        return self._fixed + counter.to_bytes(8)

    def _seal_in_place(self, start: int, length: int) -> memoryview:
        """Encrypt the packet that begins at `start` of the outbound buffer; return it with its tag."""
        body = start + 4
        end = body + length
        self._aead.encrypt_into(
            self._nonce(), OUTBOUND_VIEW[body:end], OUTBOUND_VIEW[start:body], OUTBOUND_VIEW[body : end + TAG]
        )
        return OUTBOUND_VIEW[start : end + TAG]

    def seal_data(self, channel: int, count: int) -> tuple[list[bytes | memoryview], int]:
        """Make packets of `count` bytes of channel data that lie in MANY_PACKETS; return them, and their length."""
        packets: list[bytes | memoryview] = []
        total = 0
        for start in range(0, -(-count // PACKET_SIZE) * _STRIDE, _STRIDE):
            size = min(PACKET_SIZE, count - len(packets) * PACKET_SIZE)
            padding = 4 + -(size + 14) % BLOCK
            length = 10 + size + padding
            _HEADER.pack_into(OUTBOUND, start, length, padding, DATA, channel, size)
            end = start + 4 + length
            OUTBOUND[end - padding : end] = os.urandom(padding)
            packets.append(self._seal_in_place(start, length))
            total += length
        return packets, total

    def seal_message(self, kind: int, payload: bytes) -> tuple[bytes, int]:
        """Make a packet of one message; return it, and its length as it counts for rekeying."""
        padding = 4 + -(len(payload) + 6) % BLOCK
        length = 2 + len(payload) + padding
        packet = bytes((padding, kind)) + payload + os.urandom(padding)
        return self.seal(length.to_bytes(4), packet), length

    def seal(self, header: bytes, packet: bytes) -> bytes:
        """Return the encrypted packet with its tag."""
        sealed: bytes = self._aead.encrypt(self._nonce(), packet, header)
        return header + sealed

    def open_in_place(self, start: int, length: int) -> None:
        """Check and decrypt the packet that begins at `start` of the inbound buffer. Raises InvalidTag."""
        body = start + 4
        end = body + length
        self._aead.decrypt_into(
            self._nonce(), INBOUND_VIEW[body : end + TAG], INBOUND_VIEW[start:body], INBOUND_VIEW[body:end]
        )

    # What asyncssh calls

    def encrypt_packet(self, seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
        sealed = self.seal(header, packet)
        return sealed[:-TAG], sealed[-TAG:]

    def decrypt_header(self, seq: int, first: bytes, header_len: int) -> tuple[bytes, bytes]:
        return first, first[:header_len]

    def decrypt_packet(self, seq: int, first: bytes, rest: bytes, header_len: int, mac: bytes) -> bytes | None:
        if self.broken:
            return None
        if self.plain is not None:
            plain, self.plain = self.plain, None
            return plain
        try:
            return self._aead.decrypt(self._nonce(), first[header_len:] + rest + mac, first[:header_len])
        except InvalidTag:
            return None
