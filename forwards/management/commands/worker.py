"""`manage.py worker`: the tunnels alone, for web processes started with `serve --no-worker`."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from tunnelweb import process


class Command(BaseCommand):
    help = "Run the forwards without the pages."

    def handle(self, *args: Any, **options: Any) -> None:
        import uvloop

        from forwards.worker import Worker

        try:
            lock = process.take_lock(settings.DATA_DIR)
        except process.DirectoryTaken as taken:
            raise CommandError(str(taken)) from None
        process.raise_open_files()
        call_command("migrate", verbosity=0, interactive=False)
        with lock, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(Worker(settings.WORKER_NAME)))


async def _run(worker: Any) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, worker.stop)
    await worker.run()
