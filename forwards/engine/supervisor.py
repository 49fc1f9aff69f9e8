"""Makes what runs equal to what is wanted: one task per server, one per forward."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from forwards.engine.connection import ServerConnection, open_session, through_jump
from forwards.engine.errors import EngineError
from forwards.engine.runner import ForwardRunner
from forwards.engine.session import Session
from forwards.engine.specs import ForwardSpec, ServerSpec
from forwards.engine.states import Counters, Problem, ServerStatus, State, Status
from forwards.engine.tasks import Tasks

logger = logging.getLogger(__name__)

MAX_HANDSHAKES = 10
STOP_TIMEOUT = 8.0

# Something that only one task may have at a time: its kind, and what tells it from others of it.
Claim = tuple[str, int | None, int]


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
        # What was told to stop and has not yet, with what it may still hold.
        self._ending: dict[asyncio.Task[None], frozenset[Claim]] = {}

    def reconcile(self, servers: Iterable[ServerSpec], forwards: Iterable[ForwardSpec]) -> None:
        """Start, stop and restart until exactly `forwards` run; stops come first, so that their ports are free.

        Doing it twice does nothing. What is already as wanted keeps its task, whatever state it is in.
        """
        known = {server.id: server for server in servers}
        wanted = {forward.id: forward for forward in forwards if forward.server_id in known}
        needed = _with_jumps({forward.server_id for forward in wanted.values()}, known)
        changed = self._outdated_servers(known, needed)
        for forward_id, (runner, task) in list(self._runners.items()):
            outdated = wanted.get(forward_id) != runner.forward or runner.forward.server_id in changed
            # A task that ended by itself failed in a way nobody foresaw, which its log tells; it gets another chance.
            if outdated or task.done():
                del self._runners[forward_id]
                self._stop(task, _claims(runner.forward))
        for server_id in changed:
            self._stop(self._servers.pop(server_id)[1], _server_claims(server_id))
        for server_id in needed:
            self._connect(known[server_id], known)
        for forward_id, forward in wanted.items():
            if forward_id not in self._runners:
                self._start(forward)

    def _outdated_servers(self, known: Mapping[int, ServerSpec], needed: list[int]) -> set[int]:
        """Return the running servers that must end: no longer needed, changed, or behind one that changed."""
        outdated: set[int] = set()
        for server_id, (connection, task) in self._servers.items():
            changed = server_id not in needed or known[server_id] != connection.server
            if changed or task.done() or _broken_way(known[server_id], known) != connection.broken:
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

    def _stop(self, task: asyncio.Task[None], claims: frozenset[Claim]) -> None:
        self._tasks.end(task)
        if not task.done():
            self._ending[task] = claims
            task.add_done_callback(self._ending.pop)

    def _predecessors(self, claims: frozenset[Claim]) -> list[asyncio.Task[None]]:
        return [task for task, held in self._ending.items() if held & claims]

    def _connect(self, server: ServerSpec, known: Mapping[int, ServerSpec]) -> None:
        """Start the connection of a server whose jump host, if it has one, has its own already."""
        if server.id in self._servers:
            return
        broken = _broken_way(server, known)
        jump = None if broken or server.proxy_jump is None else self._servers[server.proxy_jump][0]
        connection = ServerConnection(server, jump, self._handshakes, self._on_server_status, broken=broken)
        # The old session may still hold remote ports that the new one asks for.
        predecessors = self._predecessors(_server_claims(server.id))
        task = self._tasks.spawn(_after(predecessors, connection.run), f"server {server.id}")
        self._servers[server.id] = connection, task

    def _start(self, forward: ForwardSpec) -> None:
        connection = self._servers[forward.server_id][0]
        runner = ForwardRunner(forward, connection, self._on_status, seen=State.STOPPED)
        # Somebody asked for this forward just now, so its server is tried now too.
        connection.retry_now()
        predecessors = self._predecessors(_claims(forward))
        task = self._tasks.spawn(_after(predecessors, runner.run), f"forward {forward.id}")
        self._runners[forward.id] = runner, task

    def counters(self) -> dict[int, Counters]:
        """Return the counters of every forward that is wanted, by id."""
        return {forward_id: runner.counters() for forward_id, (runner, _) in self._runners.items()}

    def retry_now(self) -> None:
        """Try everything that waits for a later time at once, after the machine slept or the network changed."""
        for connection, _ in self._servers.values():
            connection.retry_now(asked=False)

    async def test(self, chain: list[ServerSpec]) -> TestOutcome:
        """Sign in once at the last server of `chain`, through the others in their order, and disconnect."""
        began = time.monotonic()
        sessions: list[Session] = []
        hop = chain[0]
        if broken := _broken_way(chain[-1], {server.id: server for server in chain}):
            return TestOutcome(broken, 0.0)
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
        for runner, task in self._runners.values():
            self._stop(task, _claims(runner.forward))
        self._runners.clear()
        # Forwards end before the connections they run over, to give their remote ports back in order.
        if self._ending:
            await asyncio.wait(set(self._ending), timeout=STOP_TIMEOUT / 2)
        self._servers.clear()
        await self._tasks.cancel(patience=STOP_TIMEOUT / 2)


async def _after(predecessors: list[asyncio.Task[None]], run: Callable[[], Awaitable[None]]) -> None:
    """Run something once the tasks before it have closed what it needs."""
    if predecessors:
        await asyncio.wait(predecessors)
    await run()


def _server_claims(server_id: int) -> frozenset[Claim]:
    return frozenset({("server", server_id, 0)})


def _claims(forward: ForwardSpec) -> frozenset[Claim]:
    """Return what two forwards cannot have at once: one id to report by, one port on one machine."""
    claims: set[Claim] = {("forward", forward.id, 0)}
    if forward.listen_port:
        machine = forward.server_id if forward.listens_on_server else None
        claims.add(("port", machine, forward.listen_port))
    return frozenset(claims)


def _broken_way(server: ServerSpec, known: Mapping[int, ServerSpec]) -> Problem | None:
    """Return why the jump hosts of a server lead nowhere, None when they do not.

    Forms refuse both; a row written past them must neither hang the worker nor be connected to directly.
    """
    hop = server
    seen = {server.id}
    while hop.proxy_jump is not None:
        if hop.proxy_jump in seen:
            return Problem("jump_loop", {"server": server.name})
        if hop.proxy_jump not in known:
            return Problem("jump_missing", {"server": hop.name})
        hop = known[hop.proxy_jump]
        seen.add(hop.id)
    return None


def _with_jumps(ids: set[int], known: Mapping[int, ServerSpec]) -> list[int]:
    """Return `ids` and the jump hosts on the way to them, a jump host before what is behind it."""
    ordered: list[int] = []

    def add(server_id: int | None, seen: tuple[int, ...]) -> None:
        if server_id is None or server_id not in known or server_id in ordered or server_id in seen:
            return
        add(known[server_id].proxy_jump, (*seen, server_id))
        ordered.append(server_id)

    for server_id in sorted(ids):
        add(server_id, ())
    return ordered
