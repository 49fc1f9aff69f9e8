"""The accepting side of a dynamic forward: a socket during its SOCKS handshake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import asyncssh

from forwards.engine.relay import set_nodelay
from forwards.engine.socks import Handshake, Refused, Reply, Request

SOCKS_HANDSHAKE_TIMEOUT = 10.0


class SocksFront(asyncio.Protocol):
    """A socket during its SOCKS handshake, which must end within SOCKS_HANDSHAKE_TIMEOUT seconds."""

    def __init__(
        self,
        begin: Callable[[asyncio.Transport], bool],
        end: Callable[[asyncio.Transport], None],
        relay_to: Callable[[asyncio.Transport, Request, Handshake], None],
    ) -> None:
        self._begin = begin
        self._end = end
        self._relay_to = relay_to
        self._handshake = Handshake()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        set_nodelay(transport)
        if self._begin(self._transport):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(SOCKS_HANDSHAKE_TIMEOUT, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        try:
            answer, request = self._handshake.feed(data)
        except Refused as refused:
            if refused.reply:
                self._transport.write(refused.reply)
            self._transport.close()
            return
        if answer:
            self._transport.write(answer)
        if request:
            self._leave()
            self._relay_to(self._transport, request, self._handshake)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._end(self._transport)


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
