"""The worker: the only place where database, channel layer and engine meet.

It is level-triggered: woken by a message, by a change in the database, or by time, it loads what is wanted and lets
the supervisor make it so. What the supervisor reports goes into the database, and then to open dashboards.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from channels.layers import get_channel_layer
from django.db import utils

from forwards import messages, store
from forwards.engine.specs import ServerSpec
from forwards.engine.states import Counters, ServerStatus, Status
from forwards.engine.supervisor import Supervisor
from forwards.engine.tasks import Tasks
from forwards.models import HEARTBEAT_SECONDS

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
FULL_LOOK_SECONDS = 5.0
COUNTERS_STORED_SECONDS = 5.0
RETRY_SECONDS = 1.0
END_SECONDS = 1.5
# A sleep that took this much longer than asked for means that the machine slept.
SLEPT_SECONDS = 10.0

T = TypeVar("T")


class Worker:
    """Runs the tunnels this process is responsible for; `run` until cancelled, or until `stop`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.supervisor = Supervisor(self._forward_reported, self._server_reported)
        self._database = ThreadPoolExecutor(1, thread_name_prefix="worker-database")
        self._wake = asyncio.Event()
        self._report = asyncio.Event()
        self._statuses: dict[int, Status] = {}
        self._server_statuses: dict[int, ServerStatus] = {}
        self._shown_counters: dict[int, Counters] = {}
        self._seen = store.Wanted()
        self._tasks = Tasks()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Work until `stop` is called; then close every tunnel and write the last statuses."""
        await self._stubbornly(partial(store.begin, self.name, socket.gethostname(), os.getpid()))
        jobs = [
            self._tasks.spawn(job(), f"worker {job.__name__}")
            for job in (self._listen, self._look, self._write, self._beat, self._count)
        ]
        stopping = self._tasks.spawn(self._stopping.wait(), "worker stop")
        # None of the jobs ends by itself: one that does has failed, and a worker without it would lie.
        await asyncio.wait({stopping, *jobs}, return_when=asyncio.FIRST_COMPLETED)
        failed = [job for job in jobs if job.done()]
        await self._tasks.cancel()
        await self.supervisor.close()
        await self._end()
        for job in failed:
            job.result()

    def stop(self) -> None:
        """Ask `run` to end in order."""
        self._stopping.set()

    # Jobs

    async def _listen(self) -> None:
        """Wake at each message; the channel layer failing leaves the database to look at."""
        channel = messages.worker_channel(self.name)
        while True:
            try:
                await get_channel_layer().receive(channel)
            except OSError as error:
                logger.warning("The channel layer cannot be reached: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            self._wake.set()

    async def _look(self) -> None:
        """Load what is wanted at each wake-up, at each change in the database, and every few seconds anyway."""
        version = None
        looked = 0.0
        loop = asyncio.get_running_loop()
        while True:
            before, version = version, await self._stubbornly(store.data_version)
            due = loop.time() - looked >= FULL_LOOK_SECONDS
            if self._wake.is_set() or version != before or due:
                self._wake.clear()
                looked = loop.time()
                await self._reconcile()
            # The loop's own clock stands still while the machine sleeps.
            asleep = time.time()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), LOOK_SECONDS)
            if time.time() - asleep > SLEPT_SECONDS:
                logger.info("The machine slept; trying every connection anew")
                self.supervisor.retry_now()

    async def _reconcile(self) -> None:
        wanted = await self._stubbornly(store.load)
        self.supervisor.reconcile(wanted.servers, wanted.forwards)
        for pk, status in wanted.refused.items():
            if self._seen.refused.get(pk) != status:
                self._forward_reported(status)
        for chain in wanted.tests:
            self._tasks.spawn(self._test(chain), f"test of server {chain[-1].id}")
        changed, listed, servers = self._seen.differences(wanted)
        self._seen = wanted
        if changed:
            await messages.announce_forwards(changed)
        if listed:
            await messages.announce(messages.FORWARDS_LISTED)
        if servers:
            await messages.announce_servers(servers)

    async def _write(self) -> None:
        """Write each reported status at once, then have its row drawn anew."""
        while True:
            await self._report.wait()
            self._report.clear()
            statuses, self._statuses = self._statuses, {}
            servers, self._server_statuses = self._server_statuses, {}
            await self._stubbornly(partial(store.write_statuses, statuses))
            await self._stubbornly(partial(store.write_server_statuses, servers))
            if statuses:
                await messages.announce_forwards(statuses)
            if servers:
                await messages.announce_servers(servers)

    async def _beat(self) -> None:
        while True:
            await self._stubbornly(partial(store.beat, self.name))
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _count(self) -> None:
        """Send what was counted once a second, only what changed; store it every few seconds."""
        loop = asyncio.get_running_loop()
        stored = loop.time()
        unstored: dict[int, Counters] = {}
        while True:
            await asyncio.sleep(1)
            now = self.supervisor.counters()
            changed = {pk: counters for pk, counters in now.items() if self._shown_counters.get(pk) != counters}
            self._shown_counters = now
            unstored |= changed
            if changed:
                await messages.announce(messages.COUNTERS, rows=[_row(pk, item) for pk, item in changed.items()])
            if unstored and loop.time() - stored >= COUNTERS_STORED_SECONDS:
                stored = loop.time()
                await self._stubbornly(partial(store.write_counters, dict(unstored)))
                # A page that was fetched since the last time shows what was stored then.
                rows = [_row(pk, now.get(pk, item)) for pk, item in unstored.items()]
                await messages.announce(messages.COUNTERS, rows=rows)
                unstored.clear()

    async def _test(self, chain: list[ServerSpec]) -> None:
        outcome = await self.supervisor.test(chain)
        server = chain[-1].id
        await self._stubbornly(partial(store.finish_test, server, outcome))
        await messages.announce_servers({server, outcome.presented_by or server})

    # Reports of the supervisor, in the event loop

    def _forward_reported(self, status: Status) -> None:
        self._statuses[status.forward_id] = status
        self._report.set()

    def _server_reported(self, status: ServerStatus) -> None:
        self._server_statuses[status.server_id] = status
        self._report.set()

    # Database

    async def _in_database(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._database, work)

    async def _stubbornly(self, work: Callable[[], T]) -> T:
        """Run `work` in the database thread until it succeeds; tunnels go on meanwhile."""
        while True:
            try:
                return await self._in_database(work)
            except (utils.OperationalError, utils.InterfaceError) as error:
                logger.warning("The database cannot be used: %s", error)
                await self._in_database(store.close)
                await asyncio.sleep(RETRY_SECONDS)

    async def _end(self) -> None:
        """Write what the last reports said. Bounded, since the process is about to end."""
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._in_database(partial(store.write_statuses, self._statuses))
                await self._in_database(partial(store.write_server_statuses, self._server_statuses))
                await self._in_database(partial(store.end, self.name))
                await self._in_database(store.close)
        except (utils.OperationalError, TimeoutError) as error:
            logger.warning("The last statuses could not be written: %s", error)
        self._database.shutdown(wait=False)


def _row(pk: int, counters: Counters) -> dict[str, int]:
    return {
        "id": pk,
        "connections": counters.active,
        "bytes_in": counters.bytes_in,
        "bytes_out": counters.bytes_out,
    }
