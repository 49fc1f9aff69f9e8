"""The accepting side of a dynamic forward: a socket during its SOCKS handshake."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import asyncssh

from forwards.engine.sockets import reset
from forwards.engine.socks import MAX_HANDSHAKE, Handshake, Refused, Reply, Request

SOCKS_HANDSHAKE_TIMEOUT = 10.0


class SocksFront:
    """Reads a request from a client within SOCKS_HANDSHAKE_TIMEOUT seconds.

    `on_request` takes the socket over with what was asked for; `on_end` hears that it was closed without a request.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_request: Callable[[socket.socket, Request, Handshake], None],
        on_end: Callable[[socket.socket], None],
    ) -> None:
        self._sock = sock
        self._on_request = on_request
        self._on_end = on_end
        self._handshake = Handshake()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)
        self._timer = self._loop.call_later(SOCKS_HANDSHAKE_TIMEOUT, self._end)

    def cancel(self) -> None:
        """Leave the socket alone; whoever calls closes it."""
        self._timer.cancel()
        self._loop.remove_reader(self._sock.fileno())

    def _readable(self) -> None:
        try:
            data = self._sock.recv(MAX_HANDSHAKE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        try:
            answer, request = self._handshake.feed(data)
        except Refused as refused:
            self._end(refused.reply)
            return
        if answer and not self._say(answer):
            self._end()
        elif request:
            self.cancel()
            self._on_request(self._sock, request, self._handshake)

    def _say(self, answer: bytes) -> bool:
        """Send an answer of a few bytes; False for a client whose buffer is full before it asked for anything."""
        try:
            return self._sock.send(answer) == len(answer)
        except OSError:
            return False

    def _end(self, last: bytes = b"") -> None:
        self.cancel()
        self._on_end(self._sock)
        if last:
            with contextlib.suppress(OSError):
                self._sock.send(last)
            self._sock.close()
        else:
            reset(self._sock)


def reply_to_failure(error: BaseException) -> Reply:
    """Return the SOCKS reply that says best why a channel was not opened."""
    if isinstance(error, asyncssh.ChannelOpenError):
        if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
            return Reply.FORBIDDEN
        reason = error.reason.lower()
        if "refused" in reason:
            return Reply.REFUSED
        return Reply.TIMED_OUT if "timed out" in reason else Reply.UNREACHABLE
    return Reply.TIMED_OUT if isinstance(error, TimeoutError) else Reply.FAILED
