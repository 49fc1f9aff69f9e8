"""The SOCKS front of a dynamic forward: RFC 1928 (SOCKS 5), SOCKS 4 and 4a, CONNECT only.

A parser without sockets: bytes go in, replies and at last a request come out. Names are resolved on the far side.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum

from forwards.engine.specs import SpecError, parse_host

MAX_HANDSHAKE = 1024
MAX_SOCKS4_FIELD = 255


class Reply(Enum):
    """Outcome of a request, with the codes of SOCKS 5 (RFC 1928, 6) and SOCKS 4."""

    GRANTED = (0x00, 0x5A)
    FAILED = (0x01, 0x5B)
    FORBIDDEN = (0x02, 0x5B)
    UNREACHABLE = (0x04, 0x5B)
    REFUSED = (0x05, 0x5B)
    TIMED_OUT = (0x06, 0x5B)
    BAD_COMMAND = (0x07, 0x5B)
    BAD_ADDRESS = (0x08, 0x5B)


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for, and the bytes it sent after asking."""

    host: str
    port: int
    early: bytes


class Refused(Exception):
    """The handshake ends here; `reply` is what to send before closing, empty where no protocol was recognised."""

    def __init__(self, reply: bytes = b"") -> None:
        super().__init__("SOCKS handshake refused")
        self.reply = reply


class _Incomplete(Exception):
    pass


class _Reader:
    """Takes fields off the front of a buffer, or raises _Incomplete until all of it is there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if len(self._data) < end:
            raise _Incomplete
        taken, self.position = self._data[self.position : end], end
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def until_nul(self, version_reply: bytes) -> bytes:
        end = self._data.find(b"\0", self.position)
        if (end if end >= 0 else len(self._data)) - self.position > MAX_SOCKS4_FIELD:
            raise Refused(version_reply)
        if end < 0:
            raise _Incomplete
        taken, self.position = self._data[self.position : end], end + 1
        return taken

    @property
    def rest(self) -> bytes:
        return self._data[self.position :]


class Handshake:
    """The handshake of one client: feed it what arrives, send what it returns."""

    def __init__(self) -> None:
        self._buffer = b""
        self._version: int | None = None
        self._greeted = False

    def feed(self, data: bytes) -> tuple[bytes, Request | None]:
        """Return bytes to send now, and the request once it is complete. Raises Refused."""
        self._buffer += data
        answer = b""
        try:
            if self._version is None and self._buffer:
                self._version = self._buffer[0]
            if self._version == 4:
                return b"", self._socks4(_Reader(self._buffer))
            if self._version == 5:
                answer = b"" if self._greeted else self._greet(_Reader(self._buffer))
                return answer, self._socks5(_Reader(self._buffer))
            if self._version is not None:
                raise Refused
            return b"", None
        except Refused as refused:
            # The greeting was answered even if the request behind it came in the same piece.
            raise Refused(answer + refused.reply) from None
        except _Incomplete:
            # What follows a complete request is the client's data; only a handshake that does not end is cut.
            if len(self._buffer) > MAX_HANDSHAKE:
                refusal = self.reply(Reply.FAILED) if self._greeted or self._version == 4 else b""
                raise Refused(answer + refusal) from None
            return answer, None

    def reply(self, outcome: Reply) -> bytes:
        """Return the answer to the request; the bound address is left at zero, as OpenSSH does."""
        code5, code4 = outcome.value
        if self._version == 4:
            return bytes((0, code4)) + bytes(6)
        return bytes((5, code5, 0, 1)) + bytes(6)

    def _greet(self, reader: _Reader) -> bytes:
        reader.byte()
        methods = reader.take(reader.byte())
        self._buffer = reader.rest
        if 0 not in methods:
            raise Refused(b"\x05\xff")
        self._greeted = True
        return b"\x05\x00"

    def _socks5(self, reader: _Reader) -> Request:
        if self._buffer[:1] not in (b"", b"\x05"):
            raise Refused(self.reply(Reply.FAILED))
        _, command, _, kind = reader.take(4)
        if kind == 1:
            host = str(ipaddress.IPv4Address(reader.take(4)))
        elif kind == 4:
            host = str(ipaddress.IPv6Address(reader.take(16)))
        elif kind == 3:
            host = self._name(reader.take(reader.byte()))
        else:
            raise Refused(self.reply(Reply.BAD_ADDRESS))
        port = int.from_bytes(reader.take(2))
        return self._request(host, port, command, reader.rest)

    def _socks4(self, reader: _Reader) -> Request:
        refusal = self.reply(Reply.FAILED)
        _, command = reader.take(2)
        port = int.from_bytes(reader.take(2))
        address = reader.take(4)
        reader.until_nul(refusal)
        if address[:3] == b"\0\0\0" and address[3]:
            host = self._name(reader.until_nul(refusal))
        else:
            host = str(ipaddress.IPv4Address(address))
        return self._request(host, port, command, reader.rest)

    def _name(self, raw: bytes) -> str:
        # A NUL or a broken character in a destination makes an SSH server close the whole connection.
        try:
            return parse_host(raw.decode("ascii"))
        except (UnicodeDecodeError, SpecError):
            raise Refused(self.reply(Reply.BAD_ADDRESS)) from None

    def _request(self, host: str, port: int, command: int, early: bytes) -> Request:
        if command != 1:
            raise Refused(self.reply(Reply.BAD_COMMAND))
        if not port:
            raise Refused(self.reply(Reply.FAILED))
        return Request(host, port, early)
