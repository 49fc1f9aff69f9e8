"""When something is wrong: the sentence in the row, and the click that mends it."""

import socket
import time

from playwright.sync_api import Page, expect

from tests import live, sshd
from tests.e2e.conftest import SERVER, Site, expect_state, row

FORWARD = """
from forwards.models import *
Forward.objects.create(name="Web", server=Server.objects.get(), enabled={enabled}, local_port={port},
                       remote_host="127.0.0.1", remote_port={dest})
"""


def test_a_port_in_use_names_its_holder_and_the_next_one_is_a_click_away(
    page: Page, dashboard: live.Dashboard, trusted: sshd.Sshd, site: Site
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        dashboard.shell(FORWARD.format(port=port, dest=site.port, enabled=True))
        expect_state(page, "Web", "failed")
        web = row(page, "Web")
        expect(web.get_by_text("Error", exact=True)).to_be_visible()
        expect(web.get_by_text(f"Port {port} is already in use on this machine by")).to_be_visible()
        web.get_by_role("button", name="instead").click()
        expect_state(page, "Web", "listening")
        expect(web.get_by_text(f"127.0.0.1:{port}", exact=True)).to_have_count(0)


def test_a_destination_that_refuses_is_connected_but_with_a_warning(
    page: Page, dashboard: live.Dashboard, trusted: sshd.Sshd
) -> None:
    dead = sshd.free_port()
    dashboard.shell(FORWARD.format(port=sshd.free_port(), dest=dead, enabled=True))
    expect_state(page, "Web", "listening")
    expect(
        row(page, "Web").get_by_text(f"Connected, but 127.0.0.1:{dead} on My VPS refuses connections")
    ).to_be_visible()
    expect(row(page, "Web").locator(".status-green")).to_have_count(0)


def test_a_changed_host_key_stops_everything_until_a_person_accepts_it(
    page: Page, dashboard: live.Dashboard, trusted: sshd.Sshd, site: Site, tmp_path
) -> None:
    dashboard.shell(FORWARD.format(port=sshd.free_port(), dest=site.port, enabled=False))
    other = sshd.public_key(sshd.keygen(tmp_path / "other"))
    dashboard.shell(f"from forwards.models import *\nHostKey.objects.update(public_key={other!r})")
    row(page, "Web").get_by_role("button", name="Start").click()
    expect_state(page, "Web", "failed")
    expect(row(page, "Web").get_by_text("The host key of My VPS has changed")).to_be_visible()
    row(page, "Web").get_by_role("link", name="Look into the changed key").click()
    accept = page.get_by_role("button", name="Accept the new key")
    accept.click()
    expect(accept).to_be_visible()
    page.get_by_role("checkbox").check()
    accept.click()
    page.get_by_role("link", name="Port Forward").first.click()
    expect_state(page, "Web", "listening")


def test_a_lost_server_reconnects_by_itself_and_the_row_counts_down(
    page: Page, dashboard: live.Dashboard, site: Site
) -> None:
    with sshd.running() as server:
        values = {"port": server.port, "user": server.user, "key": str(server.key), "host_key": server.public_host_key}
        dashboard.shell(SERVER.format(**values))
        port = sshd.free_port()
        dashboard.shell(FORWARD.format(port=port, dest=site.port, enabled=True))
        expect_state(page, "Web", "listening")
        server.stop()
        expect_state(page, "Web", "retrying")
        expect(row(page, "Web").get_by_text("Reconnecting", exact=True)).to_be_visible()
        server.start()
        expect_state(page, "Web", "listening")


def test_edit_of_a_running_forward_stops_it_first_and_keeps_what_was_typed_on_an_error(
    page: Page, dashboard: live.Dashboard, trusted: sshd.Sshd, site: Site
) -> None:
    port, other = sshd.free_port(), sshd.free_port()
    dashboard.shell(FORWARD.format(port=port, dest=site.port, enabled=True))
    expect_state(page, "Web", "listening")
    row(page, "Web").get_by_role("button", name="Edit").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Stop and edit").click()
    dialog.get_by_label("Name", exact=True).fill("Web, renamed")
    dialog.get_by_label("Local port", exact=True).fill("70000")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("Enter a port between 0 and 65535")).to_be_visible()
    expect(dialog.get_by_label("Name", exact=True)).to_have_value("Web, renamed")
    expect(dialog.get_by_label("Local port", exact=True)).to_have_value("70000")
    dialog.get_by_label("Local port", exact=True).fill(str(other))
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    expect_state(page, "Web, renamed", "stopped")
    row(page, "Web, renamed").get_by_role("button", name="Start").click()
    expect_state(page, "Web, renamed", "listening")
    socket.create_connection(("127.0.0.1", other), timeout=5).close()


def test_delete_asks_and_frees_the_port(page: Page, dashboard: live.Dashboard, trusted: sshd.Sshd, site: Site) -> None:
    port = sshd.free_port()
    dashboard.shell(FORWARD.format(port=port, dest=site.port, enabled=True))
    expect_state(page, "Web", "listening")
    row(page, "Web").get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Cancel").click()
    expect_state(page, "Web", "listening")
    row(page, "Web").get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(row(page, "Web")).to_have_count(0)
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_server(("127.0.0.1", port)).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the port is still held"
            time.sleep(0.05)
