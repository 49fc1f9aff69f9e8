"""Tunnelweb as a contender, as users run it: a `serve` process with a browser's websocket connected."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.bench.contenders import DYNAMIC, KINDS, LOCAL, Contender, Pair, Running, Site, Unavailable
from tests.bench.live import Visitor
from tests.conftest import REPOSITORY
from tests.live import Dashboard

SETUP = """
from forwards.models import *
server = Server.objects.create(name="My VPS", host="127.0.0.1", port={port}, user={user!r}, auth="key_file",
                               key_path={key!r})
HostKey.objects.create(server=server, algorithm="ssh-ed25519", public_key={host_key!r}, fingerprint="SHA256:x")
Forward.objects.bulk_create(Forward(name=str(n), server=server, **fields) for n, fields in enumerate({forwards!r}))
"""


class Serve(Dashboard):
    """A dashboard with variables of its own, whose complaints go into a file: nobody reads a pipe meanwhile."""

    def __init__(self, data: Path, **variables: str) -> None:
        super().__init__(data)
        self._environment |= variables
        self.log = data / "stderr"

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        with self.log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, str(REPOSITORY / "manage.py"), *arguments],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def end(self) -> None:
        # One that does not end by itself is killed by stop(), which says so.
        if self.process is not None:
            with suppress(AssertionError):
                self.stop(signal.SIGTERM)


def page(dashboard: Dashboard) -> ClientConnection:
    """Sign in, open the list, and hold its websocket, taking in what comes."""
    visitor = Visitor(dashboard)
    address = dashboard.url.replace("http", "ws", 1) + "/ws/dashboard/"
    origin, cookies = dashboard.url, {"Cookie": visitor.cookies}
    socket = connect(address, origin=origin, additional_headers=cookies, max_size=None)  # type: ignore[arg-type]

    def read() -> None:
        with suppress(ConnectionClosed):
            for _ in socket:
                pass

    threading.Thread(target=read, daemon=True).start()
    return socket


def row(kind: str, listen: int, target: int) -> dict[str, object]:
    """Return the columns of one forward."""
    if kind == DYNAMIC:
        return {"kind": kind, "local_port": listen, "remote_host": ""}
    local, remote = (listen, target) if kind == LOCAL else (target, listen)
    return {"kind": kind, "local_port": local, "remote_port": remote}


class Tunnelweb(Contender):
    kinds = KINDS

    def __init__(self, name: str, title: str, **variables: str) -> None:
        self.name, self.title, self.variables = name, title, variables

    def started(self, site: Site, kind: str, pairs: Sequence[Pair], stack: ExitStack) -> Running:
        data = Path(tempfile.mkdtemp(prefix="tunnelweb-bench-"))
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        dashboard = Serve(data, **self.variables)
        stack.callback(dashboard.end)
        try:
            dashboard.start()
            dashboard.shell(
                SETUP.format(
                    port=site.port,
                    user=site.sshd.user,
                    key=str(site.sshd.key),
                    host_key=site.sshd.public_host_key,
                    forwards=[row(kind, *pair) for pair in pairs],
                )
            )
            stack.callback(page(dashboard).close)
        except (OSError, RuntimeError, AssertionError) as error:
            raise Unavailable(f"{self.title} did not start: {error} {dashboard.log.read_text()[-300:]}") from None
        process = dashboard.process
        assert process is not None
        began = time.perf_counter()
        # What Start writes. It is pressed for all at once, which the page has no button for.
        with sqlite3.connect(data / "tunnelweb.sqlite3", timeout=20) as database:
            database.execute("UPDATE forwards_forward SET enabled = 1, generation = generation + 1")
        database.close()

        def complaint() -> str:
            with sqlite3.connect(data / "tunnelweb.sqlite3", timeout=20) as database:
                found = database.execute("SELECT DISTINCT state, reason FROM forwards_forwardstatus").fetchall()
            database.close()
            return f"{found} {dashboard.log.read_text()[-300:]}"

        return Running([process.pid], began, complaint, lambda: process.poll() is not None)
