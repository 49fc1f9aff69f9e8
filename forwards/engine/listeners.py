"""Opens and closes one forward's listener: local, dynamic or remote, and relays the clients it accepts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import asyncssh

from forwards.engine.binding import bind
from forwards.engine.errors import EngineError, Retry
from forwards.engine.relay import Relay, Traffic
from forwards.engine.session import Session
from forwards.engine.sockets import connected, prepare, reset
from forwards.engine.socks import Handshake, Reply, Request
from forwards.engine.socks_front import SocksFront, reply_to_failure
from forwards.engine.specs import ANY_INTERFACE, ForwardSpec, Kind, is_loopback
from forwards.engine.tasks import Tasks, within

logger = logging.getLogger(__name__)

MAX_CLIENTS = 1000
# Accepted in one turn of the loop; others have theirs in between.
ACCEPTED_AT_ONCE = 64
CHANNEL_TIMEOUT = 60.0
DIAL_TIMEOUT = 30.0
REMOTE_LISTEN_TIMEOUT = 15.0
CLOSE_TIMEOUT = 3.0
# How long to leave clients in the kernel's queue when no more files can be opened.
NO_FILES_PAUSE = 1.0

# Gives the SSH connection a client's channel is opened on; waits a while for one. Raises TimeoutError.
Connect = Callable[[], Awaitable[Session]]
# The connection there is now, None while there is none.
Current = Callable[[], Session | None]
# Hears how each way to the destination ended: None for well, else why not.
Outcome = Callable[[BaseException | None], None]


class Listener:
    """What every kind of listener shares: its clients, its tasks, and an end that is really one."""

    def __init__(self, forward: ForwardSpec, traffic: Traffic, on_outcome: Outcome) -> None:
        self.forward = forward
        self.traffic = traffic
        self.port = forward.listen_port
        self._on_outcome = on_outcome
        self._relays: set[Relay] = set()
        self._tasks = Tasks()
        # Finishes what was asked of a server and may be answered after the listener is gone.
        self._late = Tasks()

    async def close(self) -> None:
        """Stop listening and cut every client; the port is free when this returns."""
        raise NotImplementedError

    async def _cut_clients(self) -> None:
        for relay in list(self._relays):
            relay.abort()
        await self._tasks.cancel()


@dataclass(slots=True)
class _Client:
    """An accepted client and where it wants to go; by SOCKS, with its handshake and what it sent behind it."""

    sock: socket.socket
    origin: tuple[str, int]
    host: str
    port: int
    handshake: Handshake | None = None
    early: bytes = b""


class LocalListener(Listener):
    """Listens on this machine, for a local or a dynamic forward."""

    def __init__(
        self, forward: ForwardSpec, traffic: Traffic, connect: Connect, current: Current, on_outcome: Outcome
    ) -> None:
        super().__init__(forward, traffic, on_outcome)
        self._connect = connect
        self._current = current
        self._loop = asyncio.get_running_loop()
        self._listening: list[socket.socket] = []
        # Accepted sockets without a relay: in a SOCKS handshake, or waiting for the server to come back.
        self._pending: set[socket.socket] = set()
        self._fronts: dict[socket.socket, SocksFront] = {}
        self._accept_at_once = 1
        self._timers: dict[Relay, asyncio.TimerHandle] = {}

    async def open(self) -> None:
        """Listen and accept. Raises EngineError."""
        self._listening = await bind(self.forward)
        self.port = self._listening[0].getsockname()[1]
        for listening in self._listening:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    async def close(self) -> None:
        for listening in self._listening:
            self._loop.remove_reader(listening.fileno())
            listening.close()
        self._listening.clear()
        for front in list(self._fronts.values()):
            front.cancel()
        await self._cut_clients()
        for sock in list(self._pending):
            self._forget_pending(sock)
            reset(sock)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(self._accept_at_once):
            try:
                sock, origin = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._accept_at_once = 1
                break
            except OSError as error:
                logger.warning("Forward %s cannot accept a client: %s", self.forward.id, error.strerror)
                self._loop.remove_reader(listening.fileno())
                self._loop.call_later(NO_FILES_PAUSE, self._accept_again, listening)
                return
            self._take(sock, origin[:2])
        else:
            # Whoever comes alone is not kept waiting for the answer that nobody else is there.
            self._accept_at_once = min(2 * self._accept_at_once, ACCEPTED_AT_ONCE)
        if session := self._current():
            session.wire.flush()

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._listening:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    def _take(self, sock: socket.socket, origin: tuple[str, int]) -> None:
        if self.traffic.active + len(self._pending) >= MAX_CLIENTS:
            reset(sock)
            return
        prepare(sock)
        if self.forward.kind is Kind.DYNAMIC:
            self._pending.add(sock)
            self._fronts[sock] = SocksFront(sock, partial(self._asked_for, origin), self._forget_pending)
        else:
            self._relay(_Client(sock, origin, self.forward.dest_host, self.forward.dest_port))

    def _forget_pending(self, sock: socket.socket) -> None:
        self._pending.discard(sock)
        self._fronts.pop(sock, None)

    def _asked_for(self, origin: tuple[str, int], sock: socket.socket, request: Request, handshake: Handshake) -> None:
        self._forget_pending(sock)
        self._relay(_Client(sock, origin, request.host, request.port, handshake, request.early))

    def _relay(self, client: _Client) -> None:
        """Open the SSH channel of a client at once, or as soon as the server is back."""
        session = self._current()
        if session is not None:
            self._open(session, client)
        else:
            self._pending.add(client.sock)
            self._tasks.spawn(self._relay_later(client), "waiting client")

    async def _relay_later(self, client: _Client) -> None:
        try:
            session = await self._connect()
        except TimeoutError as error:
            if client.handshake:
                with contextlib.suppress(OSError):
                    client.sock.send(client.handshake.reply(reply_to_failure(error)))
            reset(client.sock)
            return
        except BaseException:
            reset(client.sock)
            raise
        finally:
            self._forget_pending(client.sock)
        self._open(session, client)

    def _open(self, session: Session, client: _Client) -> None:
        answered = partial(self._answered, client.handshake)
        relay = Relay(session.wire, client.sock, self.traffic, answered, self._relays.discard)
        self._relays.add(relay)
        if client.handshake:
            relay.greeting = client.handshake.reply(Reply.GRANTED)
            relay.early = client.early
        try:
            relay.open_direct(client.host, client.port, *client.origin)
        except asyncssh.ChannelOpenError as error:
            answered(relay, error)
        else:
            self._timers[relay] = self._loop.call_later(CHANNEL_TIMEOUT, answered, relay, TimeoutError())

    def _answered(self, handshake: Handshake | None, relay: Relay, error: Exception | None) -> None:
        """The channel of a client is open, or not: a SOCKS client is told why, another one is reset."""
        if timer := self._timers.pop(relay, None):
            timer.cancel()
        self._on_outcome(error)
        if error is None:
            return
        if handshake:
            relay.end(handshake.reply(reply_to_failure(error)))
        else:
            relay.abort()


class RemoteListener(Listener):
    """Listens on the SSH server, for a remote forward; clients are connected to the destination from here."""

    def __init__(self, forward: ForwardSpec, traffic: Traffic, on_outcome: Outcome) -> None:
        super().__init__(forward, traffic, on_outcome)
        self._listener: asyncssh.SSHListener | None = None
        self._session: Session | None = None
        self._closing = False
        # Connections of our own that look whether the port is public, each with where it may seem to come from.
        self._expected: dict[asyncio.Future[None], str] = {}

    def expect(self, origin: str) -> asyncio.Future[None]:
        """Take the next connection from the server's loopback, or from `origin`, for one of our own.

        It is refused, and the future that is returned is done. It must be given to `forget` in the end.
        """
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expected[arrived] = origin
        return arrived

    def forget(self, arrived: asyncio.Future[None]) -> None:
        self._expected.pop(arrived, None)

    async def open(self, session: Session, server_name: str) -> None:
        """Ask the server to listen (RFC 4254, 7.1). Raises EngineError."""
        self._session = session
        host = self.forward.listen_host
        # The empty string is RFC 4254's name for every interface.
        wire_host = "" if host == ANY_INTERFACE else host
        names: dict[str, Any] = {"server": server_name, "port": self.forward.listen_port}

        async def ask() -> asyncssh.SSHListener:
            listener = await session.conn.create_server(_never, wire_host, self.forward.listen_port)
            # Before anything else may run, so that no client meets asyncssh's own way of accepting.
            cast(Any, listener).process_connection = self._accept
            return listener

        try:
            self._listener = await within(
                REMOTE_LISTEN_TIMEOUT, ask(), keeper=self._late, name="listen", undo=lambda late: late.close()
            )
        except asyncssh.ChannelListenError:
            raise EngineError("remote_port_refused", Retry.SLOWLY, **names) from None
        except TimeoutError:
            raise EngineError("remote_port_timeout", Retry.SLOWLY, **names) from None
        self.port = self._listener.get_port()

    async def close(self) -> None:
        self._closing = True
        await self._cut_clients()
        if self._listener:
            self._listener.close()
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._listener.wait_closed()
            except TimeoutError:
                logger.warning("The server did not confirm that port %s is closed", self.port)

    def _accept(self, orig_host: str, orig_port: int) -> tuple[Relay, None]:
        """Take a client the server accepted, as asyncssh's listener does. Raises ChannelOpenError."""
        if self._session is None or self._closing:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "closing")
        for arrived, origin in self._expected.items():
            if not arrived.done() and (is_loopback(orig_host) or orig_host == origin):
                arrived.set_result(None)
                raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "probe")
        if self.traffic.active >= MAX_CLIENTS:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many connections")
        relay = Relay(self._session.wire, None, self.traffic, lambda relay, error: None, self._relays.discard)
        relay.register()
        self._relays.add(relay)
        self._tasks.spawn(self._dial(relay), "dial")
        return relay, None

    async def _dial(self, relay: Relay) -> None:
        """Connect to the destination from here, then open the channel, or say why not."""
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                relay.dialled(await connected(self.forward.dest_host, self.forward.dest_port))
        except (OSError, UnicodeError) as error:
            relay.refuse(asyncssh.OPEN_CONNECT_FAILED, "Connection failed")
            relay.abort()
            self._on_outcome(error)
            return
        except BaseException:
            relay.refuse(asyncssh.OPEN_CONNECT_FAILED, "Closing")
            relay.abort()
            raise
        self._on_outcome(None)
        if relay.recv_id is None:
            relay.abort()
        else:
            relay.accept()


def _never(orig_host: str, orig_port: int) -> asyncssh.SSHTCPSession[bytes]:
    raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "not ready")
