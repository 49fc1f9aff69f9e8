"""How fast a change reaches open dashboards: `python -m tests.bench.live [--rounds N] [--pages N]`.

Starts an sshd and a `serve` of its own, opens some websockets as browsers do, and measures for each door the time from
the action to the arrival of the new row at the last of them. The page's and the admin's click are HTTP requests, the
shell is a row written by another process.
"""

from __future__ import annotations

import argparse
import asyncio
import http.cookiejar
import re
import sqlite3
import statistics
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

from tests import live, sshd

SETUP = """
from forwards.models import *
server = Server.objects.create(name="My VPS", host="127.0.0.1", port={port}, user={user!r}, auth="key_file",
                               key_path={key!r})
HostKey.objects.create(server=server, algorithm="ssh-ed25519", public_key={host_key!r}, fingerprint="SHA256:x")
Forward.objects.create(name="measured", server=server, local_port=0, remote_host="127.0.0.1", remote_port={port})
"""


class Visitor:
    """A signed-in browser without a screen."""

    def __init__(self, dashboard: live.Dashboard) -> None:
        self.url = dashboard.url
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))
        with self.opener.open(dashboard.link) as page:
            found = re.search(r'"X-CSRFToken": "(\w+)"', page.read().decode())
        assert found
        self.token = found[1]

    @property
    def cookies(self) -> str:
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.jar)

    def post(self, path: str, **data: str) -> None:
        headers = {"X-CSRFToken": self.token, "Origin": self.url}
        body = urllib.parse.urlencode({"csrfmiddlewaretoken": self.token, **data}).encode()
        self.opener.open(urllib.request.Request(self.url + path, body, headers)).close()


async def arrival(page: ClientConnection, state: str) -> float:
    """Return when a page got the row in `state`."""
    async with asyncio.timeout(10):
        async for message in page:
            if f'data-state="{state}"' in str(message):
                return time.perf_counter()
    raise AssertionError("the socket ended")


async def measure(visitor: Visitor, pages: list[ClientConnection], act: Callable[[], None], state: str) -> float:
    waiting = [asyncio.ensure_future(arrival(page, state)) for page in pages]
    began = time.perf_counter()
    await asyncio.to_thread(act)
    return max(await asyncio.gather(*waiting)) - began


async def rounds(dashboard: live.Dashboard, count: int, pages: int) -> dict[str, list[float]]:
    visitor = Visitor(dashboard)
    address = dashboard.url.replace("http", "ws", 1) + "/ws/dashboard/"
    headers = {"Cookie": visitor.cookies}

    def write(enabled: int) -> None:
        with sqlite3.connect(dashboard.data / "tunnelweb.sqlite3", timeout=20) as database:
            database.execute("UPDATE forwards_forward SET enabled = ?", (enabled,))
        database.close()

    def admin(action: str) -> Callable[[], None]:
        return lambda: visitor.post("/admin/forwards/forward/", action=action, _selected_action="1", index="0")

    doors = {
        "page": (lambda: visitor.post("/forwards/1/start/"), lambda: visitor.post("/forwards/1/stop/")),
        "admin": (admin("start"), admin("stop")),
        "shell": (lambda: write(1), lambda: write(0)),
    }
    times: dict[str, list[float]] = {}
    sockets = [await connect(address, origin=dashboard.url, additional_headers=headers) for _ in range(pages)]  # type: ignore[arg-type]
    for _ in range(count):
        for door, (start, stop) in doors.items():
            times.setdefault(f"{door}: Start → Connected", []).append(
                await measure(visitor, sockets, start, "listening")
            )
            times.setdefault(f"{door}: Stop → Disconnected", []).append(
                await measure(visitor, sockets, stop, "stopped")
            )
    for socket in sockets:
        await socket.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pages", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sshd.running() as server, live.serving(Path(folder)) as dashboard:
        values = {"port": server.port, "user": server.user, "key": str(server.key)}
        dashboard.shell(SETUP.format(host_key=server.public_host_key, **values))
        times = asyncio.run(rounds(dashboard, options.rounds, options.pages))
    print(f"milliseconds until the last of {options.pages} pages had the row, {options.rounds} rounds")
    for name, found in times.items():
        print(f"{name:28} median {statistics.median(found) * 1000:6.0f}   worst {max(found) * 1000:6.0f}")


if __name__ == "__main__":
    main()
