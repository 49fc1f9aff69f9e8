"""Makes what runs equal to what is wanted: one task per server, one per forward."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from forwards.engine.connection import ServerConnection, Session, open_session, through_jump
from forwards.engine.errors import EngineError
from forwards.engine.runner import ForwardRunner
from forwards.engine.specs import ForwardSpec, ServerSpec
from forwards.engine.states import Counters, Problem, ServerStatus, State, Status
from forwards.engine.tasks import Tasks

logger = logging.getLogger(__name__)

MAX_HANDSHAKES = 10
STOP_TIMEOUT = 8.0


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """What came of signing in once at a server. `presented_key` belongs to the server `presented_by`."""

    problem: Problem | None
    seconds: float
    presented_key: str = ""
    presented_by: int | None = None


class Supervisor:
    """Owner of all connections and forwards. `reconcile` may be called at any time, with the whole of what is wanted.

    `on_status` and `on_server_status` are called in the event loop at each change; they must not block.
    """

    def __init__(self, on_status: Callable[[Status], None], on_server_status: Callable[[ServerStatus], None]) -> None:
        self._on_status = on_status
        self._on_server_status = on_server_status
        self._servers: dict[int, tuple[ServerConnection, asyncio.Task[None]]] = {}
        self._runners: dict[int, tuple[ForwardRunner, asyncio.Task[None]]] = {}
        self._handshakes = asyncio.Semaphore(MAX_HANDSHAKES)
        self._tasks = Tasks()

    def reconcile(self, servers: Iterable[ServerSpec], forwards: Iterable[ForwardSpec]) -> None:
        """Start, stop and restart until exactly `forwards` run; stops come first, so that their ports are free.

        Doing it twice does nothing. What is already as wanted keeps its task, whatever state it is in.
        """
        known = {server.id: server for server in servers}
        wanted = {forward.id: forward for forward in forwards if forward.server_id in known}
        needed = _with_jumps({forward.server_id for forward in wanted.values()}, known)
        changed = self._outdated_servers(known, needed)
        ended: dict[int, asyncio.Task[None]] = {}
        for forward_id, (runner, task) in list(self._runners.items()):
            if wanted.get(forward_id) != runner.forward or runner.forward.server_id in changed:
                task.cancel()
                ended[forward_id] = task
                del self._runners[forward_id]
        gone = {server_id: self._servers.pop(server_id)[1] for server_id in changed}
        for task in gone.values():
            task.cancel()
        for server_id in needed:
            self._connect(server_id, known, gone.get(server_id))
        for forward_id, forward in wanted.items():
            if forward_id not in self._runners:
                self._start(forward, ended.get(forward_id))

    def _outdated_servers(self, known: Mapping[int, ServerSpec], needed: list[int]) -> set[int]:
        """Return the running servers that must end: no longer needed, changed, or behind one that changed."""
        outdated: set[int] = set()
        for server_id, (connection, _) in self._servers.items():
            if server_id not in needed or known[server_id] != connection.server:
                outdated.add(server_id)
            else:
                connection.server = known[server_id]  # its name may be another
        while True:
            behind = {
                server_id
                for server_id, (connection, _) in self._servers.items()
                if connection.jump and connection.jump.server.id in outdated
            }
            if behind <= outdated:
                return outdated
            outdated |= behind

    def _connect(self, server_id: int, known: Mapping[int, ServerSpec], predecessor: asyncio.Task[None] | None) -> None:
        """Start the connection of a server whose jump host, if it has one, has its own already."""
        if server_id in self._servers:
            return
        server = known[server_id]
        jump = self._servers[server.proxy_jump][0] if server.proxy_jump in self._servers else None
        connection = ServerConnection(server, jump, self._handshakes, self._on_server_status)
        # The old session may still hold remote ports that the new one asks for.
        task = self._tasks.spawn(_after(predecessor, connection.run), f"server {server_id}")
        self._servers[server_id] = connection, task

    def _start(self, forward: ForwardSpec, predecessor: asyncio.Task[None] | None) -> None:
        connection = self._servers[forward.server_id][0]
        runner = ForwardRunner(forward, connection, self._on_status, seen=State.STOPPED)
        # Somebody asked for this forward just now, so its server is tried now too.
        connection.retry_now()
        task = self._tasks.spawn(_after(predecessor, runner.run), f"forward {forward.id}")
        self._runners[forward.id] = runner, task

    def counters(self) -> dict[int, Counters]:
        """Return the counters of every forward that is wanted, by id."""
        return {forward_id: runner.counters() for forward_id, (runner, _) in self._runners.items()}

    def retry_now(self) -> None:
        """Try everything that waits for a later time at once, after the machine slept or the network changed."""
        for connection, _ in self._servers.values():
            connection.retry_now()

    async def test(self, chain: list[ServerSpec]) -> TestOutcome:
        """Sign in once at the last server of `chain`, through the others in their order, and disconnect."""
        began = time.monotonic()
        sessions: list[Session] = []
        hop = chain[0]
        try:
            for hop in chain:
                via = (chain[len(sessions) - 1], sessions[-1]) if sessions else None
                async with self._handshakes:
                    sessions.append(await open_session(hop, via, self._tasks))
        except EngineError as error:
            problem = error.problem if hop is chain[-1] else through_jump(error.problem, hop)
            by = hop.id if error.presented_key else None
            return TestOutcome(problem, time.monotonic() - began, error.presented_key, by)
        finally:
            for session in reversed(sessions):
                await session.close()
        return TestOutcome(None, time.monotonic() - began)

    async def close(self) -> None:
        """Stop everything; returns when all ports are closed, after STOP_TIMEOUT seconds at the latest."""
        for _, task in [*self._runners.values()]:
            task.cancel()
        running = [task for _, task in self._runners.values()]
        if running:
            await asyncio.wait(running, timeout=STOP_TIMEOUT / 2)
        self._runners.clear()
        self._servers.clear()
        await self._tasks.cancel(patience=STOP_TIMEOUT / 2)


async def _after(predecessor: asyncio.Task[None] | None, run: Callable[[], Awaitable[None]]) -> None:
    """Run something once the task it replaces has closed what it held."""
    if predecessor:
        await asyncio.wait({predecessor})
    await run()


def _with_jumps(ids: set[int], known: Mapping[int, ServerSpec]) -> list[int]:
    """Return `ids` and the jump hosts on the way to them, a jump host before what is behind it."""
    ordered: list[int] = []

    def add(server_id: int | None, seen: tuple[int, ...]) -> None:
        # A loop is refused when it is saved; a row written past the form must not hang the worker.
        if server_id is None or server_id not in known or server_id in ordered or server_id in seen:
            return
        add(known[server_id].proxy_jump, (*seen, server_id))
        ordered.append(server_id)

    for server_id in sorted(ids):
        add(server_id, ())
    return ordered
