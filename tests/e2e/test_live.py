"""What reaches an open page, from which door, and what a page says that is cut off."""

import re
import socket
import subprocess
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests import live, sshd
from tests.e2e.conftest import Site, expect_state, row

FORWARD = """
from forwards.models import *
Forward.objects.create(name="Web", server=Server.objects.get(), local_port={port}, remote_host="127.0.0.1",
                       remote_port={dest})
"""


def add_web(dashboard: live.Dashboard, site: Site) -> int:
    port = sshd.free_port()
    dashboard.shell(FORWARD.format(port=port, dest=site.port))
    return port


def test_a_change_reaches_every_browser_from_every_door(
    open_page: Callable[[], Page], dashboard: live.Dashboard, trusted: sshd.Sshd, site: Site
) -> None:
    one, two = open_page(), open_page()
    add_web(dashboard, site)
    for page in (one, two):
        expect_state(page, "Web", "stopped")

    row(one, "Web").get_by_role("button", name="Start").click()
    for page in (one, two):
        expect_state(page, "Web", "listening")

    dashboard.shell("from forwards.models import *\nForward.objects.update(enabled=False)")
    for page in (one, two):
        expect_state(page, "Web", "stopped")

    admin = two.context.new_page()
    admin.goto(f"{dashboard.url}/admin/forwards/forward/")
    admin.get_by_label("Select this object for an action").first.check()
    admin.get_by_label("Action:").select_option(label="Start")
    admin.get_by_role("button", name="Go").click()
    for page in (one, two):
        expect_state(page, "Web", "listening")

    dashboard.shell("from forwards.models import *\nForward.objects.update(name='Renamed')")
    for page in (one, two):
        expect(row(page, "Renamed")).to_be_visible()
        expect_state(page, "Renamed", "listening")

    dashboard.shell("from forwards.models import *\nForward.objects.all().delete()")
    for page in (one, two):
        expect(row(page, "Renamed")).to_have_count(0)


def test_the_row_counts_connections_and_bytes_while_they_happen(
    page: Page, dashboard: live.Dashboard, trusted: sshd.Sshd, site: Site
) -> None:
    port = add_web(dashboard, site)
    row(page, "Web").get_by_role("button", name="Start").click()
    expect_state(page, "Web", "listening")

    connections = row(page, "Web").locator(".tw-cell-connections .tw-number")
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
        expect(connections).to_have_text("2")
    expect(connections).to_have_text("0")

    slow = subprocess.Popen(
        [
            "curl",
            "--silent",
            "--limit-rate",
            "8M",
            "--max-time",
            "60",
            "-o",
            "/dev/null",
            f"http://127.0.0.1:{port}/big",
        ]
    )
    try:
        expect(connections).to_have_text("1")
        got = row(page, "Web").locator(".tw-cell-in .tw-number")
        expect(got).to_have_text(re.compile(r"^\d+\.\d\sMB$"))
        first = got.inner_text()
        expect(got).not_to_have_text(first)
        page.reload()
        expect(got).to_have_text(re.compile(r"^\d+\.\d\sMB$"))
    finally:
        slow.terminate()
        slow.wait(timeout=10)


def test_a_page_that_lost_its_socket_says_so_and_redraws_when_it_is_back(
    page: Page, dashboard: live.Dashboard, trusted: sshd.Sshd, site: Site
) -> None:
    add_web(dashboard, site)
    expect_state(page, "Web", "stopped")
    banner = page.get_by_text("Live updates are interrupted")
    expect(banner).to_be_hidden()

    port = dashboard.port
    assert dashboard.stop() == (0, "")
    expect(banner).to_be_visible()
    dashboard.shell("from forwards.models import *\nForward.objects.update(enabled=True, name='Changed meanwhile')")
    dashboard.start(port)
    expect(banner).to_be_hidden()
    expect_state(page, "Changed meanwhile", "listening")


def test_a_worker_that_is_gone_is_never_shown_green(
    page: Page, dashboard: live.Dashboard, trusted: sshd.Sshd, site: Site
) -> None:
    add_web(dashboard, site)
    row(page, "Web").get_by_role("button", name="Start").click()
    expect_state(page, "Web", "listening")
    port = dashboard.port
    assert dashboard.process is not None
    dashboard.process.kill()
    dashboard.process.communicate(timeout=15)
    dashboard.arguments = ("--no-worker",)
    dashboard.start(port)
    expect_state(page, "Web", "unknown")
    expect(row(page, "Web").get_by_text("The worker is not running")).to_be_visible()


def test_signing_out_ends_what_other_tabs_see(page: Page, dashboard: live.Dashboard) -> None:
    other = page.context.new_page()
    other.goto(dashboard.url)
    other.get_by_label("User menu").click()
    other.get_by_role("button", name="Sign out").click()
    expect(other.get_by_role("button", name="Sign in")).to_be_visible()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
