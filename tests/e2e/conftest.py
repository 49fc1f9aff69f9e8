"""A real Chromium on a real `serve`, with a real sshd and real services behind it."""

from __future__ import annotations

import hashlib
import http.server
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests import live, sshd

expect.set_options(timeout=15_000)

CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A browser for one test: Playwright's event loop, while it runs, keeps other tests of the process from theirs."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server() -> Iterator[sshd.Sshd]:
    with sshd.running() as running:
        yield running


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[live.Dashboard]:
    with live.serving(tmp_path / "data") as running:
        yield running


@pytest.fixture
def open_page(browser: Browser, dashboard: live.Dashboard) -> Iterator[Callable[[], Page]]:
    """Open further pages, each in a browser of its own as far as cookies go; errors in their consoles fail the test."""
    pages: list[Page] = []
    errors: list[str] = []

    def open_one() -> Page:
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        pages.append(page)
        page.goto(dashboard.link if len(pages) == 1 else dashboard.run("sign_in_link", "--address", dashboard.url))
        return page

    yield open_one
    for page in pages:
        page.context.close()
    assert errors == []


@pytest.fixture
def page(open_page: Callable[[], Page]) -> Page:
    return open_page()


class Site:
    """A web server that serves one big file and knows its SHA-256."""

    SIZE = 100 * 1000 * 1000

    def __init__(self, folder: Path) -> None:
        block = bytes(range(256)) * 4096
        digest = hashlib.sha256()
        with (folder / "big").open("wb") as file:
            for _ in range(self.SIZE // len(block) + 1):
                digest.update(block)
                file.write(block)
        self.size = (folder / "big").stat().st_size
        self.sha256 = digest.hexdigest()

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: object) -> None:
                super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    running = Site(tmp_path_factory.mktemp("site"))
    yield running
    running.close()


def row(page: Page, name: str) -> Locator:
    """Return the row of a forward or server by its name."""
    return page.locator("tr").filter(has=page.get_by_text(name, exact=True))


def expect_state(page: Page, name: str, state: str) -> None:
    expect(row(page, name)).to_have_attribute("data-state", state)


SERVER = """
from forwards.models import *
server = Server.objects.create(name="My VPS", host="127.0.0.1", port={port}, user={user!r}, auth="key_file",
                               key_path={key!r})
HostKey.objects.create(server=server, algorithm="ssh-ed25519", public_key={host_key!r}, fingerprint="SHA256:x")
"""


@pytest.fixture
def trusted(dashboard: live.Dashboard, server: sshd.Sshd) -> sshd.Sshd:
    """A server “My VPS” that can be signed in to."""
    values = {"port": server.port, "user": server.user, "key": str(server.key), "host_key": server.public_host_key}
    dashboard.shell(SERVER.format(**values))
    return server
