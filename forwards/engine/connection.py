"""One SSH connection per server, shared by its forwards: signing in, keeping alive, noticing loss, trying again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import asyncssh

from forwards.engine.auth import credentials
from forwards.engine.backoff import HEALTHY_AFTER, Backoff
from forwards.engine.ciphers import ciphers
from forwards.engine.errors import EngineError, Retry, connect_error, host_key_error, jump_error, lost_error
from forwards.engine.fastpath import FastWire, is_usable
from forwards.engine.greeting import speaks_otherwise
from forwards.engine.hostkeys import HostKeyCheck, wanted_algorithms
from forwards.engine.session import Session
from forwards.engine.sockets import connected
from forwards.engine.specs import ServerSpec
from forwards.engine.states import Problem, ServerStatus, State, may_follow
from forwards.engine.tasks import Tasks, within

logger = logging.getLogger(__name__)

SLOW_RETRY = 15.0


class _Client(asyncssh.SSHClient):
    """asyncssh's view of us: decides on the host key and hears when the connection ends."""

    def __init__(self, check: HostKeyCheck, lost: asyncio.Future[BaseException | None]) -> None:
        self._check = check
        self._lost = lost

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return self._check.accepts(key)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._lost.done():
            self._lost.set_result(exc)


class _FastTunnel:
    """Lets asyncssh.connect(tunnel=…) work on a socket of ours, by the fast path. `wire` is there once connected."""

    def __init__(self) -> None:
        self.wire: FastWire | None = None

    async def create_connection(self, factory: Callable[[], Any], host: str, port: int) -> tuple[Any, Any]:
        sock = await connected(host, port)
        try:
            conn = factory()
            self.wire = FastWire(conn, sock)
        except BaseException:
            sock.close()
            raise
        self.wire.start()
        return self.wire, conn


class _JumpTunnel:
    """What asyncssh.connect(tunnel=…) asks for: opens the way to the next hop over `session`.

    A channel that opens after the caller gave up is closed; asyncssh would leave it open on the jump host.
    """

    def __init__(self, session: Session, timeout: float, keeper: Tasks) -> None:
        self._session = session
        self._timeout = timeout
        self._keeper = keeper

    async def create_connection(self, factory: Callable[[], Any], host: str, port: int) -> tuple[Any, Any]:
        opening = self._session.conn.create_connection(factory, host, port)
        return await within(
            self._timeout, opening, keeper=self._keeper, name="jump", undo=lambda opened: opened[0].abort()
        )


async def open_session(server: ServerSpec, via: tuple[ServerSpec, Session] | None, keeper: Tasks) -> Session:
    """Connect and sign in at `server`, through the session of a jump host where `via` names one.

    Takes at most `server.connect_timeout` seconds, and two more to look at who hung up. Raises EngineError. `keeper`
    outlives the call: it finishes what comes too late. No file of the user's is read, nothing of ~/.ssh/config runs,
    no key is accepted but trusted ones.
    """
    check = HostKeyCheck(server.host_keys)
    lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    fast = _FastTunnel() if not via and is_usable() else None
    tunnel = _JumpTunnel(via[1], server.connect_timeout, keeper) if via else fast or ()
    try:
        async with asyncio.timeout(server.connect_timeout), credentials(server) as signing_in:
            conn = await asyncssh.connect(
                server.host,
                server.port,
                tunnel=tunnel,
                config=[],
                known_hosts=([], [], []),
                server_host_key_algs=wanted_algorithms(server.host_keys),
                username=server.user,
                client_factory=lambda: _Client(check, lost),
                connect_timeout=server.connect_timeout,
                login_timeout=server.connect_timeout,
                keepalive_interval=server.keepalive_interval,
                keepalive_count_max=server.keepalive_count_max,
                utf8_decode_errors="replace",
                encryption_algs=ciphers(),
                compression_algs=None,
                client_version="Tunnelweb",
                **signing_in,
            )
    except Exception as error:
        if refused := host_key_error(check, server):
            raise refused from None
        meaning = jump_error(error, server, via[0]) if via else connect_error(error, server)
        hung_up = isinstance(error, ConnectionResetError) or meaning.problem.code == "connection_lost"
        if hung_up and not via and await speaks_otherwise(server.host, server.port):
            meaning = connect_error(asyncssh.ProtocolNotSupported("no SSH version"), server)
        if meaning.problem.code == "internal":
            logger.exception("Connecting to server %s failed in an unknown way", server.id)
        raise meaning from None
    return Session(conn, lost, fast.wire if fast else None)


class ServerConnection:
    """Keeps one SSH connection open while somebody needs it; `run` is its task.

    `state` is a State as for forwards, `listening` meaning signed in; `session` is there exactly then. `problem`,
    `retry_at` (Unix seconds) explain retrying and failed. `broken` is why its jump hosts lead nowhere: such a server
    fails, and is never connected to directly instead.
    """

    def __init__(
        self,
        server: ServerSpec,
        jump: ServerConnection | None,
        handshakes: asyncio.Semaphore,
        on_status: Callable[[ServerStatus], None],
        *,
        broken: Problem | None = None,
    ) -> None:
        self.server = server
        self.jump = jump
        self.broken = broken
        self.state = State.STOPPED
        self.session: Session | None = None
        self.problem: Problem | None = None
        self.retry_at: float | None = None
        self.backoff = Backoff()
        self._handshakes = handshakes
        self._on_status = on_status
        self._changed = asyncio.Event()
        self._kick = asyncio.Event()
        self._late = Tasks()

    def retry_now(self, *, asked: bool = True) -> None:
        """Try again at once if this connection is waiting for a later time; where a person `asked`, also if for one."""
        if self.state is State.RETRYING or (asked and self.state is State.FAILED):
            self.backoff.reset()
            self._kick.set()
        if self.jump:
            self.jump.retry_now(asked=asked)

    async def change(self) -> None:
        """Return at the next change of state."""
        await self._changed.wait()

    async def run(self) -> None:
        """Connect, wait for the end, connect again: until cancelled, and then disconnect."""
        try:
            while True:
                await self._once()
        finally:
            await self._close()

    async def _close(self) -> None:
        session, self.session = self.session, None
        if session:
            await session.close()
        await self._late.cancel(patience=1)
        self._set(State.STOPPING)
        self._set(State.STOPPED)

    async def _once(self) -> None:
        if self.state is State.STOPPED:
            self._set(State.STARTING)
        try:
            session = await self._connect()
        except EngineError as error:
            await self._pause(error)
            return
        self.session = session
        began = time.monotonic()
        self._set(State.LISTENING)
        loss = lost_error(await session.lost, self.server)
        self.session = None
        if time.monotonic() - began >= HEALTHY_AFTER:
            self.backoff.reset()
        logger.info("Server %s: %s", self.server.id, loss.problem.code)
        await self._pause(loss)

    async def _connect(self) -> Session:
        via = None
        if self.broken:
            params: dict[str, Any] = dict(self.broken.params)
            raise EngineError(self.broken.code, Retry.NEVER, **params)
        if self.jump:
            via = (self.jump.server, await self._jump_session(self.jump))
        async with self._handshakes:
            return await open_session(self.server, via, self._late)

    async def _jump_session(self, jump: ServerConnection) -> Session:
        """Return the jump host's session as soon as it has one; its troubles are ours as long as it has none."""
        while jump.session is None:
            if jump.state is State.FAILED and jump.problem:
                self._set(State.FAILED, through_jump(jump.problem, jump.server))
            elif jump.problem:
                self._set(State.RETRYING, through_jump(jump.problem, jump.server), retry_at=jump.retry_at)
            await jump.change()
        return jump.session

    async def _pause(self, error: EngineError) -> None:
        """Wait until trying again makes sense: a delay, a person, or never."""
        # Who asked during the attempt has got it; to try again unasked could burn a login.
        self._kick.clear()
        if error.retry is Retry.NEVER:
            self._set(State.FAILED, error.problem, presented_key=error.presented_key)
            await self._kick.wait()
            self._set(State.STARTING)
            return
        delay = max(SLOW_RETRY if error.retry is Retry.SLOWLY else 0.0, self.backoff.next_delay())
        self._set(State.RETRYING, error.problem, retry_at=time.time() + delay)
        try:
            async with asyncio.timeout(delay):
                await self._kick.wait()
        except TimeoutError:
            return
        self._set(State.STARTING)

    def _set(
        self, state: State, problem: Problem | None = None, *, retry_at: float | None = None, presented_key: str = ""
    ) -> None:
        if (state, problem, retry_at) == (self.state, self.problem, self.retry_at):
            return
        if not may_follow(self.state, state):
            raise AssertionError(f"server {self.server.id}: {self.state} cannot become {state}")
        logger.debug("Server %s: %s -> %s (%s)", self.server.id, self.state, state, problem and problem.code)
        self.state, self.problem, self.retry_at = state, problem, retry_at
        self._on_status(ServerStatus(self.server.id, state, problem, presented_key, time.time()))
        self._changed.set()
        self._changed.clear()


def through_jump(problem: Problem, jump: ServerSpec) -> Problem:
    """Return a jump host's problem as that of a server behind it."""
    if "jump" in problem.params:
        return problem
    return Problem("jump_failed", {**problem.params, "jump": jump.name, "detail_code": problem.code})
