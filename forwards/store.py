"""The worker's reading and writing of rows, in synchronous code for its database thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from forwards.engine.hostkeys import fingerprint
from forwards.engine.specs import ForwardSpec, ServerSpec, SpecError
from forwards.engine.states import Counters, Problem, ServerStatus, State, Status
from forwards.engine.supervisor import TestOutcome
from forwards.models import ConnectionTest, Forward, ForwardStatus, Server
from forwards.models import ServerStatus as ServerStatusRow
from forwards.models import Worker as WorkerRow


@dataclass
class Wanted:
    """All that is wanted: specs for the supervisor, tests to run, and every row as it was seen.

    `refused` holds the status of each forward that is on but whose row, or whose server's, no form ever validated.
    """

    servers: list[ServerSpec] = field(default_factory=list)
    forwards: list[ForwardSpec] = field(default_factory=list)
    tests: list[list[ServerSpec]] = field(default_factory=list)
    refused: dict[int, Status] = field(default_factory=dict)
    forward_rows: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    server_rows: dict[int, tuple[Any, ...]] = field(default_factory=dict)

    def differences(self, newer: Wanted) -> tuple[set[int], bool, set[int]]:
        """Return the forwards that changed, whether any came or went, and the servers that changed, came or went."""
        old, new = self.forward_rows, newer.forward_rows
        changed = {pk for pk in new if pk in old and new[pk] != old[pk]}
        servers = dict(set(self.server_rows.items()) ^ set(newer.server_rows.items()))
        return changed, old.keys() != new.keys(), set(servers)


def load() -> Wanted:
    """Return what is wanted now."""
    wanted = Wanted()
    specs: dict[int, ServerSpec] = {}
    unusable: dict[int, SpecError] = {}
    for server in Server.objects.prefetch_related("host_keys"):
        try:
            specs[server.pk] = server.spec()
        except SpecError as error:
            unusable[server.pk] = error
        wanted.server_rows[server.pk] = (server.updated_at, server.name)
    for forward in Forward.objects.all():
        wanted.forward_rows[forward.pk] = tuple(
            getattr(forward, item.attname) for item in forward._meta.concrete_fields if item.attname != "updated_at"
        )
        if not forward.enabled:
            continue
        try:
            if forward.server_id in unusable:
                raise unusable[forward.server_id]
            wanted.forwards.append(forward.spec())
        except SpecError as error:
            problem = Problem(error.code, error.params)
            wanted.refused[forward.pk] = Status(forward.pk, forward.generation, State.FAILED, problem)
    wanted.servers = list(specs.values())
    wanted.tests = _requested_tests(specs)
    return wanted


def _requested_tests(specs: Mapping[int, ServerSpec]) -> list[list[ServerSpec]]:
    """Return the chain of servers of each test nobody has taken up yet, and mark it as taken."""
    chains = []
    for test in ConnectionTest.objects.filter(finished_at=None, taken_at=None, server_id__in=specs):
        taken = ConnectionTest.objects.filter(pk=test.pk, taken_at=None, finished_at=None)
        if taken.update(taken_at=timezone.now()):
            chains.append(_chain(test.server_id, specs))
    return chains


def _chain(server_id: int, specs: Mapping[int, ServerSpec]) -> list[ServerSpec]:
    chain: list[ServerSpec] = []
    hop = specs.get(server_id)
    while hop is not None and hop not in chain:
        chain.insert(0, hop)
        hop = specs.get(hop.proxy_jump) if hop.proxy_jump else None
    return chain


def begin(name: str, hostname: str, pid: int) -> None:
    """Register the worker. Whatever a former process left is no longer true: nothing is open yet."""
    now = timezone.now()
    with transaction.atomic():
        WorkerRow.objects.update_or_create(
            name=name, defaults={"hostname": hostname, "pid": pid, "started_at": now, "heartbeat_at": now}
        )
        nothing: dict[str, Any] = {"state": State.STOPPED, "reason": "", "params": {}, "updated_at": now}
        ForwardStatus.objects.exclude(state=State.STOPPED).update(
            **nothing, connections=0, retry_at=None, attempt=0, public=""
        )
        ServerStatusRow.objects.exclude(state=State.STOPPED).update(**nothing)
        ConnectionTest.objects.filter(finished_at=None).update(taken_at=None)


def beat(name: str) -> None:
    WorkerRow.objects.filter(name=name).update(heartbeat_at=timezone.now())


def end(name: str) -> None:
    """Say that the worker is gone, without waiting for its heartbeat to grow old."""
    WorkerRow.objects.filter(name=name).update(heartbeat_at=datetime.fromtimestamp(0, UTC))


def write_statuses(statuses: Mapping[int, Status]) -> None:
    """Store the snapshots of forwards that still exist, with their counters."""
    if not statuses:
        return
    with transaction.atomic():
        existing = set(Forward.objects.filter(pk__in=statuses).values_list("pk", flat=True))
        for pk in existing & statuses.keys():
            status = statuses[pk]
            values = {
                **_problem(status.problem),
                "state": status.state,
                "generation": status.generation,
                "attempt": status.attempt,
                "retry_at": _moment(status.retry_at),
                "allocated_port": status.allocated_port,
                "public": status.public,
                "since": _moment(status.since),
                **_counted(status.counters),
            }
            ForwardStatus.objects.update_or_create(forward_id=pk, defaults=values)


def write_counters(counters: Mapping[int, Counters]) -> None:
    if not counters:
        return
    with transaction.atomic():
        for pk, item in counters.items():
            ForwardStatus.objects.filter(forward_id=pk).update(**_counted(item))


def write_server_statuses(statuses: Mapping[int, ServerStatus]) -> None:
    """Store the snapshots of servers that still exist."""
    if not statuses:
        return
    with transaction.atomic():
        servers = {server.pk: server for server in Server.objects.filter(pk__in=statuses)}
        for pk in servers.keys() & statuses.keys():
            status = statuses[pk]
            values = {**_problem(status.problem), "state": status.state, "since": _moment(status.since)}
            # A key that waits for trust outlives the connection attempt, until another answer comes.
            if status.presented_key or status.state is State.LISTENING:
                values |= _presented(status.presented_key, servers[pk])
            ServerStatusRow.objects.update_or_create(server_id=pk, defaults=values)


def finish_test(server_id: int, outcome: TestOutcome) -> None:
    """Store what came of a test, and the host key it met where that one is not trusted yet."""
    problem = _problem(outcome.problem)
    with transaction.atomic():
        ConnectionTest.objects.filter(server_id=server_id).update(
            **problem, finished_at=timezone.now(), milliseconds=round(outcome.seconds * 1000)
        )
        if outcome.presented_by and (presenter := Server.objects.filter(pk=outcome.presented_by).first()):
            ServerStatusRow.objects.update_or_create(
                server=presenter, defaults=_presented(outcome.presented_key, presenter)
            )


def _presented(key: str, server: Server) -> dict[str, Any]:
    return {
        "presented_key": key,
        "presented_fingerprint": fingerprint(key) if key else "",
        "presented_by": server.address if key else "",
    }


def _problem(problem: Problem | None) -> dict[str, Any]:
    return {"reason": problem.code if problem else "", "params": dict(problem.params) if problem else {}}


def _counted(counters: Counters) -> dict[str, int]:
    return {
        "connections": counters.active,
        "connections_total": counters.total,
        "bytes_in": counters.bytes_in,
        "bytes_out": counters.bytes_out,
    }


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def data_version() -> int | None:
    """Return a number that is another one after somebody else wrote to the database; None where there is none.

    SQLite counts the commits of other connections (PRAGMA data_version): a look costs microseconds, so that a write
    from a shell or another process takes effect at once.
    """
    if connection.vendor != "sqlite":
        return None
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA data_version")
        return int(cursor.fetchone()[0])


def close() -> None:
    """Close the calling thread's database connection; the next use opens a new one."""
    connection.close()
