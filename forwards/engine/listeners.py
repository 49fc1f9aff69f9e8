"""Opens and closes one forward's listener: local, dynamic or remote, and relays the clients it accepts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import asyncssh

from forwards.engine.binding import BACKLOG, bind
from forwards.engine.errors import EngineError, Retry
from forwards.engine.relay import Accepted, Relay, SocketEnd, Traffic, reset
from forwards.engine.socks import Handshake, Reply, Request
from forwards.engine.socks_front import SocksFront, reply_to_failure
from forwards.engine.specs import ANY_INTERFACE, ForwardSpec, Kind, is_loopback
from forwards.engine.tasks import Tasks, within

logger = logging.getLogger(__name__)

MAX_CLIENTS = 1000
CHANNEL_TIMEOUT = 60.0
DIAL_TIMEOUT = 30.0
JOIN_TIMEOUT = 5.0
CLOSE_TIMEOUT = 3.0
REMOTE_LISTEN_TIMEOUT = 15.0

# Gives the SSH connection a client's channel is opened on; waits a while for one. Raises TimeoutError.
Connect = Callable[[], Awaitable[asyncssh.SSHClientConnection]]
# Hears how each way to the destination ended: None for well, else why not.
Outcome = Callable[[BaseException | None], None]


class Listener:
    """What every kind of listener shares: its clients, its tasks, and an end that is really one."""

    def __init__(self, forward: ForwardSpec, traffic: Traffic, on_outcome: Outcome) -> None:
        self.forward = forward
        self.traffic = traffic
        self.port = forward.listen_port
        self._on_outcome = on_outcome
        self._closing = False
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

    def _new_relay(self, greeting: bytes = b"", early: bytes = b"") -> Relay:
        relay = Relay(self.traffic, self._relays.discard, greeting=greeting, early=early)
        self._relays.add(relay)
        return relay


class LocalListener(Listener):
    """Listens on this machine, for a local or a dynamic forward."""

    def __init__(self, forward: ForwardSpec, traffic: Traffic, connect: Connect, on_outcome: Outcome) -> None:
        super().__init__(forward, traffic, on_outcome)
        self._connect = connect
        self._servers: list[asyncio.Server] = []
        self._handshaking: set[asyncio.Transport] = set()

    async def open(self) -> None:
        """Listen and accept. Raises EngineError."""
        sockets = await bind(self.forward)
        self.port = sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        for bound in sockets:
            self._servers.append(await loop.create_server(self._accept, sock=bound, backlog=BACKLOG))

    async def close(self) -> None:
        self._closing = True
        loop = asyncio.get_running_loop()
        for server in self._servers:
            for bound in server.sockets:
                # asyncio's server forgets, open, a connection it accepted in the turn before it was closed.
                with contextlib.suppress(NotImplementedError):
                    loop.remove_reader(bound.fileno())
        await asyncio.sleep(0)
        for server in self._servers:
            server.close()
        for transport in list(self._handshaking):
            reset(transport)
        await self._cut_clients()
        # uvloop closes the listening socket in the loop's next turn.
        await asyncio.sleep(0)
        self._servers.clear()

    def _accept(self) -> asyncio.Protocol:
        if self.forward.kind is Kind.DYNAMIC:
            return SocksFront(self._begin_handshake, self._handshaking.discard, self._relay_to)
        return Accepted(self._relay_to_destination)

    def _is_full(self, transport: asyncio.Transport) -> bool:
        # A connection accepted just before the listener closed gets here after it.
        if not self._closing and self.traffic.active + len(self._handshaking) < MAX_CLIENTS:
            return False
        reset(transport)
        return True

    def _begin_handshake(self, transport: asyncio.Transport) -> bool:
        if self._is_full(transport):
            return False
        self._handshaking.add(transport)
        return True

    def _relay_to_destination(self, transport: asyncio.Transport) -> None:
        if not self._is_full(transport):
            relay = self._new_relay()
            relay.adopt(transport)
            self._tasks.spawn(self._open_channel(relay, self.forward.dest_host, self.forward.dest_port), "client")

    def _relay_to(self, transport: asyncio.Transport, request: Request, handshake: Handshake) -> None:
        relay = self._new_relay(handshake.reply(Reply.GRANTED), request.early)
        relay.adopt(transport)
        self._tasks.spawn(self._open_for_socks(relay, transport, request, handshake), "socks client")

    async def _open_for_socks(
        self, relay: Relay, transport: asyncio.Transport, request: Request, handshake: Handshake
    ) -> None:
        error = await self._open_channel(relay, request.host, request.port)
        if error and not transport.is_closing():
            transport.write(handshake.reply(reply_to_failure(error)))
            transport.close()

    async def _open_channel(self, relay: Relay, host: str, port: int) -> Exception | None:
        """Open the SSH channel of one client and start relaying; return why that failed.

        The client of a local forward is reset then; one of a dynamic forward is still owed its SOCKS reply.
        """
        transport = cast(asyncio.Transport, relay.transport)
        origin_host, origin_port = (transport.get_extra_info("peername") or ("", 0))[:2]
        try:
            conn = await self._connect()
            await within(
                CHANNEL_TIMEOUT,
                conn.create_connection(lambda: relay, host, port, origin_host, origin_port),
                keeper=self._late,
                name="channel",
                undo=lambda opened: opened[0].abort(),
            )
        except (asyncssh.Error, OSError, TimeoutError) as error:
            self._on_outcome(error)
            if self.forward.kind is not Kind.DYNAMIC:
                relay.abort()
            return error
        except BaseException:
            relay.abort()
            raise
        self._on_outcome(None)
        return None


class RemoteListener(Listener):
    """Listens on the SSH server, for a remote forward; clients are connected to the destination from here."""

    def __init__(self, forward: ForwardSpec, traffic: Traffic, on_outcome: Outcome) -> None:
        super().__init__(forward, traffic, on_outcome)
        self._listener: asyncssh.SSHListener | None = None
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

    async def open(self, conn: asyncssh.SSHClientConnection, server_name: str) -> None:
        """Ask the server to listen (RFC 4254, 7.1). Raises EngineError."""
        host = self.forward.listen_host
        # The empty string is RFC 4254's name for every interface.
        wire_host = "" if host == ANY_INTERFACE else host
        names: dict[str, Any] = {"server": server_name, "port": self.forward.listen_port}

        async def ask() -> asyncssh.SSHListener:
            return await conn.create_server(self._accept, wire_host, self.forward.listen_port)

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

    async def _accept(self, orig_host: str, orig_port: int) -> asyncssh.SSHTCPSession[bytes]:
        """Connect one client to the destination. Raises ChannelOpenError, as asyncssh expects it."""
        for arrived, origin in self._expected.items():
            if not arrived.done() and (is_loopback(orig_host) or orig_host == origin):
                arrived.set_result(None)
                raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "probe")
        if self._closing or self.traffic.active >= MAX_CLIENTS:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many connections")
        relay = self._new_relay()
        dialling = asyncio.get_running_loop().create_connection(
            lambda: SocketEnd(relay), self.forward.dest_host, self.forward.dest_port
        )
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                await dialling
        except (OSError, UnicodeError) as error:
            relay.abort()
            self._on_outcome(error)
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "Connection failed") from None
        except BaseException:
            relay.abort()
            raise
        if relay.ended:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "Connection failed")
        self._on_outcome(None)
        # asyncssh opens the channel when this returns; should the connection have ended meanwhile, nobody tells us.
        asyncio.get_running_loop().call_later(JOIN_TIMEOUT, self._drop_unjoined, relay)
        return relay

    def _drop_unjoined(self, relay: Relay) -> None:
        if not relay.joined and relay in self._relays:
            relay.abort()
