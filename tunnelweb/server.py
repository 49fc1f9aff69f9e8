"""One process: Daphne for the pages, the worker for the tunnels, on one event loop.

Importing this module chooses the event loop, so commands import it late; nothing may have imported Daphne before.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet import asyncioreactor

if sys.platform == "win32":
    _loop = asyncio.SelectorEventLoop()
else:
    import uvloop

    _loop = uvloop.new_event_loop()

# Daphne installs a reactor of its own when it is imported, unless there is one.
asyncioreactor.install(_loop)

from daphne.server import Server  # noqa: E402
from twisted.internet import defer  # noqa: E402
from twisted.internet import reactor as _reactor  # noqa: E402

from forwards.worker import Worker  # noqa: E402

logger = logging.getLogger(__name__)

# Twisted types its reactor as the class behind the interface, whose methods take another first argument.
reactor: Any = _reactor

CLEANUP_SECONDS = 1.0


class PortTaken(Exception):
    """Another program listens where the dashboard should."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for the dashboard. Raises PortTaken, or OSError where `host` cannot be listened on.

    `localhost` takes both loopback addresses: a browser tries ::1 first, and must not find another program there.
    """
    names = ["127.0.0.1", "::1"] if host == "localhost" else [host]
    sockets: list[socket.socket] = []
    for name in names:
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        try:
            candidate = socket.socket(family, socket.SOCK_STREAM)
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                candidate.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            candidate.bind((name, port))
            candidate.listen(128)
        except OSError as error:
            candidate.close()
            if name == "::1" and sockets and error.errno != errno.EADDRINUSE:
                continue  # a machine without IPv6
            for bound in sockets:
                bound.close()
            if error.errno == errno.EADDRINUSE:
                raise PortTaken from error
            raise
        port = port or candidate.getsockname()[1]
        sockets.append(candidate)
    return sockets


def serve(application: Any, sockets: list[socket.socket], worker: Worker | None, on_ready: Callable[[], None]) -> bool:
    """Serve until SIGINT or SIGTERM, then close every tunnel. Return whether the worker ended as it should."""
    running: list[asyncio.Task[None]] = []

    def ready() -> None:
        for further in sockets[1:]:
            reactor.adoptStreamPort(further.fileno(), further.family, server.http_factory)
        if worker:
            task = _loop.create_task(worker.run(), name="worker")
            task.add_done_callback(_stop_reactor)
            running.append(task)
        # Once the reactor runs, so that the link is printed when it works.
        reactor.callLater(0, on_ready)

    def stop_worker() -> Any:
        if not worker or not running or running[0].done():
            return None
        worker.stop()
        ended = asyncio.ensure_future(asyncio.wait(running), loop=_loop)
        return defer.Deferred.fromFuture(ended)

    server = Server(
        application,
        endpoints=[f"fd:fileno={sockets[0].fileno()}"],
        ready_callable=ready,
        server_name="Tunnelweb",
        # A page left open for days reconnects by itself; there is no need to cut it after one.
        websocket_timeout=-1,
    )
    reactor.addSystemEventTrigger("before", "shutdown", stop_worker)
    server.run()
    _close_loop()
    return not any(task.cancelled() or task.exception() for task in running)


def _stop_reactor(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.critical("The worker failed; Tunnelweb ends", exc_info=error)
    if reactor.running:
        reactor.callLater(0, _stop_quietly)


def _stop_quietly() -> None:
    with contextlib.suppress(Exception):
        reactor.stop()


def _close_loop() -> None:
    """End what is left on the loop; an interpreter that ends with a task on it may crash."""
    left = asyncio.all_tasks(_loop)
    for task in left:
        task.cancel()
    if left:
        _loop.run_until_complete(asyncio.wait(left, timeout=CLEANUP_SECONDS))
    _loop.run_until_complete(_loop.shutdown_asyncgens())
    _loop.close()
