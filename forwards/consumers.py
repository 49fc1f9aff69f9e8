"""The websocket of an open dashboard: draws what changed, and notices by itself what no message told.

Handlers only note what must be drawn. Two tasks do the rest: one draws what was noted, one looks around. When either
fails the socket is closed, so that the page says so, opens a new one and draws everything anew.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import dataclass, field
from typing import Any

from channels.auth import get_user
from channels.db import database_sync_to_async
from channels.exceptions import DenyConnection
from channels.generic.websocket import AsyncWebsocketConsumer

from forwards import messages, rows
from forwards.models import Forward, Server, Worker

logger = logging.getLogger(__name__)

FORWARDS, SERVERS = LISTS = (rows.FORWARD_LIST, rows.SERVER_LIST)

# A status must show within 0.5 s; a burst of changes to one row is drawn this often and not more.
DRAW_PAUSE = 0.1
# Whether worker and session are still good. Joining the group again each time undoes the channel layer's forgetting.
LOOK_EVERY = 2.0
# Every so many looks, what the database holds is compared with what was there, for a message may be lost, and a page's
# answer may be older than a row that was drawn while it was on its way.
COMPARE_EVERY = 5
# Above this many rows one fetch of the list, which shows a page of it, costs less.
MOST_ROWS = 50

SIGNED_OUT = 4401
FAILED = 1011

Seen = dict[str, dict[int, tuple[Any, ...]]]


class SignedOut(Exception):
    """The session ended, or its user may no longer sign in."""


@dataclass
class Pending:
    """What must be drawn next. Counters noted here are newer than the rows noted here."""

    rows: dict[str, set[int]] = field(default_factory=lambda: {kind: set() for kind in LISTS})
    lists: set[str] = field(default_factory=set)
    counters: dict[int, dict[str, int]] = field(default_factory=dict)


def read() -> Seen:
    """Return what rows show, counters apart, by list and id; only good for comparing."""
    forwards = Forward.objects.values_list(
        "pk", "updated_at", "server__updated_at", "status__generation", "status__state", "status__reason",
        "status__since", "status__attempt", "status__public", "status__allocated_port",
    )  # fmt: skip
    servers = Server.objects.values_list(
        "pk", "updated_at", "status__state", "status__reason", "status__since", "status__presented_fingerprint",
        "test__requested_at", "test__finished_at", "proxy_jump__updated_at",
    )  # fmt: skip
    return {FORWARDS: {row[0]: row for row in forwards}, SERVERS: {row[0]: row for row in servers}}


def draw(pending: Pending) -> str:
    """Return the HTML of everything pending. A list that lost a row is fetched anew."""
    asked = pending.rows
    lists = pending.lists | {kind for kind in LISTS if len(asked[kind]) > MOST_ROWS}
    drawn: dict[str, list[str]] = {kind: [] for kind in LISTS}
    alive = Worker.is_alive()
    if asked[FORWARDS] and FORWARDS not in lists:
        found = Forward.objects.for_rows().filter(pk__in=asked[FORWARDS])
        drawn[FORWARDS] = [rows.forward_row_oob(forward, worker_alive=alive) for forward in found]
    if asked[SERVERS] and SERVERS not in lists:
        known = rows.servers_for_rows().filter(pk__in=asked[SERVERS])
        drawn[SERVERS] = [rows.server_row_oob(server, worker_alive=alive) for server in known]
    lists |= {kind for kind in LISTS if len(drawn[kind]) < len(asked[kind])}
    counters = rows.counters_oob(pending.counters.values())
    parts = [*drawn[FORWARDS], *drawn[SERVERS], counters, *map(rows.refresh_oob, sorted(lists))]
    return "\n".join(filter(None, parts))


class DashboardConsumer(AsyncWebsocketConsumer):
    """One open page of a signed-in user. What the page sends is ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pending = Pending()
        self._noted = asyncio.Event()
        self._seen: Seen = {kind: {} for kind in LISTS}
        self._alive = False
        self._living: asyncio.Task[None] | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        # Not in disconnect(): a server that shuts down cancels this call without one.
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._living is not None:
                self._living.cancel()
                await asyncio.gather(self._living, return_exceptions=True)
            await self.channel_layer.group_discard(messages.DASHBOARD_GROUP, self.channel_name)

    async def dispatch(self, message: dict[str, Any]) -> None:
        # Before anything that costs a thread: a page could send without end.
        if message["type"] != "websocket.receive":
            await super().dispatch(message)

    async def connect(self) -> None:
        if not self.scope["user"].is_active:
            raise DenyConnection
        await self._look()
        await self.accept()
        self._note(lists=LISTS)
        self._living = asyncio.create_task(self._live())

    async def forwards_changed(self, message: dict[str, Any]) -> None:
        self._note(FORWARDS, message["ids"])

    async def forwards_listed(self, message: dict[str, Any]) -> None:
        # A server's row says how many forwards it carries.
        self._note(lists=LISTS)

    async def servers_changed(self, message: dict[str, Any]) -> None:
        self._note(SERVERS, message["ids"])

    async def forwards_counters(self, message: dict[str, Any]) -> None:
        self._pending.counters.update({row["id"]: row for row in message["rows"]})
        self._noted.set()

    def _note(self, kind: str = FORWARDS, ids: Any = (), *, lists: Any = ()) -> None:
        """Note rows or whole lists to be drawn. A row nobody knew yet is on no page: its list is fetched."""
        self._pending.lists.update(lists)
        for pk in ids:
            if pk not in self._seen[kind]:
                self._seen[kind][pk] = ()
                self._pending.lists.add(kind)
            self._pending.rows[kind].add(pk)
            if kind == FORWARDS:
                self._pending.counters.pop(pk, None)
        self._noted.set()

    async def _live(self) -> None:
        """Draw and look around until one of both ends, and close the socket then."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._draw())
                tasks.create_task(self._watch())
        except* SignedOut:
            await self.close(SIGNED_OUT)
        except* Exception:
            logger.exception("The websocket of a dashboard failed; the page will open another.")
            await self.close(FAILED)

    async def _draw(self) -> None:
        while True:
            await self._noted.wait()
            self._noted.clear()
            pending, self._pending = self._pending, Pending()
            if html := await database_sync_to_async(draw)(pending):
                await self.send(text_data=html)
            await asyncio.sleep(DRAW_PAUSE)

    async def _watch(self) -> None:
        for turn in itertools.count(1):
            await asyncio.sleep(LOOK_EVERY)
            session = self.scope["session"]
            # A new one of the same key: the scope's own was read when the socket was opened, and stays so.
            user = await get_user({"session": session.__class__(session.session_key)})
            if not user.is_active:
                raise SignedOut
            await self._look(compare=turn % COMPARE_EVERY == 0)

    async def _look(self, *, compare: bool = True) -> None:
        """Join the group, and note what changed since the last look."""
        await self.channel_layer.group_add(messages.DASHBOARD_GROUP, self.channel_name)
        alive = await database_sync_to_async(Worker.is_alive)()
        if alive != self._alive:
            self._alive = alive
            self._note(lists=LISTS)
        if compare:
            before, self._seen = self._seen, await database_sync_to_async(read)()
            for kind in LISTS:
                changed = {pk for pk, row in self._seen[kind].items() if before[kind].get(pk, row) != row}
                self._note(kind, changed)
                if before[kind].keys() != self._seen[kind].keys():
                    self._note(lists=[kind])
