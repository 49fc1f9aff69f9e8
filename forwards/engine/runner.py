"""Keeps one forward open while its server is connected, and reports what becomes of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import asyncssh

from forwards.engine.connection import ServerConnection
from forwards.engine.errors import EngineError, Retry, destination_problem
from forwards.engine.listeners import LocalListener, RemoteListener
from forwards.engine.probe import probe_destination, probe_public
from forwards.engine.relay import Traffic
from forwards.engine.session import Session
from forwards.engine.specs import ForwardSpec, Kind
from forwards.engine.states import Counters, Problem, State, Status, may_follow
from forwards.engine.tasks import Tasks

logger = logging.getLogger(__name__)

SLOW_RETRY = 15.0
# How long a client that connects while the server is away waits for it to come back.
HOLD_SECONDS = 10.0
# A port of a forward that was stopped a moment ago may take one turn of the loop to be free.
SECOND_TRY_AFTER = 0.25


class ForwardRunner:
    """One wanted forward; `run` is its task. `on_status` hears every change of state or warning."""

    def __init__(
        self, forward: ForwardSpec, server: ServerConnection, on_status: Callable[[Status], None], *, seen: State
    ) -> None:
        self.forward = forward
        self.server = server
        self.traffic = Traffic(client_at_channel=forward.listens_on_server)
        self.status = Status(forward.id, forward.generation, seen)
        self._on_status = on_status
        self._listener: LocalListener | RemoteListener | None = None
        self._tasks = Tasks()
        self._was_up = False

    def counters(self) -> Counters:
        return self.traffic.counters()

    async def run(self) -> None:
        """Open the forward, keep it open, open it again: until cancelled. Then everything of it is closed."""
        self._set(State.STARTING)
        try:
            while True:
                session = await self._session()
                try:
                    await self._open(session)
                except EngineError as error:
                    # A server that went away meanwhile refused nothing.
                    if not session.lost.done():
                        await self._pause(error)
                    continue
                await asyncio.wait({session.lost})
                await self._lost()
        finally:
            await self._close()

    async def _session(self) -> Session:
        """Return the server's session as soon as there is one, showing the server's state meanwhile."""
        server = self.server
        while (session := server.session) is None or session.lost.done():
            if server.state is State.FAILED and self._listener:
                # Clients need not wait for what a person has to mend first.
                await self._close_listener()
                continue
            if server.state is State.FAILED:
                self._set(State.FAILED, server.problem)
            elif server.state is State.RETRYING:
                attempt = server.backoff.attempt
                self._set(State.RETRYING, server.problem, attempt=attempt, retry_at=server.retry_at)
            else:
                self._set(State.RETRYING if self._was_up else State.STARTING)
            await server.change()
        return session

    async def _open(self, session: Session) -> None:
        """Open the listener unless it was held, and look once at what is behind it. Raises EngineError."""
        if self.forward.listens_on_server:
            remote = RemoteListener(self.forward, self.traffic, self._on_outcome)
            await remote.open(session, self.server.server.name)
            self._listener = remote
        elif self._listener is None:
            self._listener = await self._open_local()
        self._was_up = True
        self._set(State.LISTENING, allocated_port=self._listener.port)
        self._tasks.spawn(self._probe(session, self._listener), f"probe of forward {self.forward.id}")

    async def _open_local(self) -> LocalListener:
        local = LocalListener(self.forward, self.traffic, self._connect, self._current, self._on_outcome)
        try:
            await local.open()
        except EngineError as error:
            if error.problem.code not in ("port_in_use_ours", "port_in_use"):
                raise
            await asyncio.sleep(SECOND_TRY_AFTER)
            await local.open()
        return local

    async def _connect(self) -> Session:
        """Return the session a client's channel is opened on; one that is away is waited for a while."""
        async with asyncio.timeout(HOLD_SECONDS):
            while (session := self.server.session) is None or session.lost.done():
                await self.server.change()
            return session

    def _current(self) -> Session | None:
        session = self.server.session
        return session if session is not None and not session.lost.done() else None

    async def _probe(self, session: Session, listener: LocalListener | RemoteListener) -> None:
        if isinstance(listener, RemoteListener):
            public = await probe_public(session.conn, listener, self.server.server, self._tasks)
            if self._is_current(listener):
                self._set(State.LISTENING, self.status.problem, allocated_port=listener.port, public=public)
        if self.forward.probe:
            problem = await probe_destination(session.conn, self.forward, self.server.server, self._tasks)
            if problem and self._is_current(listener) and not session.lost.done():
                self._warn(problem)

    def _is_current(self, listener: LocalListener | RemoteListener) -> bool:
        return self._listener is listener and self.status.state is State.LISTENING

    def _on_outcome(self, error: BaseException | None) -> None:
        """Learn from a client's connection whether the destination answers."""
        session = self.server.session
        if self.status.state is not State.LISTENING or session is None or session.lost.done():
            return
        if error is None and self.status.problem is None:
            return
        if self.forward.kind is Kind.DYNAMIC:
            # Each client asks for a destination of its own; only "the server forbids it" says something of all.
            if not isinstance(error, asyncssh.ChannelOpenError):
                self._warn(None)
            return
        self._warn(destination_problem(error, self.forward, self.server.server) if error else None)

    def _warn(self, problem: Problem | None) -> None:
        """Show or take back a warning beside a forward that listens."""
        shown = self.status
        self._set(State.LISTENING, problem, allocated_port=shown.allocated_port, public=shown.public)

    async def _lost(self) -> None:
        """The SSH connection ended: a local port is held, a remote one went with it."""
        await self._tasks.cancel(patience=1)
        if isinstance(self._listener, RemoteListener):
            await self._close_listener()

    async def _pause(self, error: EngineError) -> None:
        """Wait before opening the listener again; what a person must mend is not tried again unasked."""
        delay = None if error.retry is Retry.NEVER else SLOW_RETRY
        self._set(State.FAILED, error.problem, retry_at=time.time() + delay if delay else None)
        if delay:
            await asyncio.sleep(delay)
        else:
            await asyncio.Event().wait()

    async def _close_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener:
            await listener.close()

    async def _close(self) -> None:
        self._set(State.STOPPING)
        await self._tasks.cancel(patience=1)
        await self._close_listener()
        self._set(State.STOPPED)

    def _set(self, state: State, problem: Problem | None = None, **details: Any) -> None:
        old = self.status
        if not may_follow(old.state, state):
            raise AssertionError(f"forward {self.forward.id}: {old.state} cannot become {state}")
        since = old.since if old.state is state and old.since else time.time()
        counters = self.traffic.counters()
        new = Status(
            self.forward.id, self.forward.generation, state, problem, since=since, counters=counters, **details
        )
        if new != old:
            logger.debug("Forward %s: %s -> %s (%s)", self.forward.id, old.state, state, problem and problem.code)
            self.status = new
            self._on_status(new)
