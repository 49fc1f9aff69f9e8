"""The way of a new user: from the sign-in link to three kinds of forward that carry a big file."""

import hashlib
import subprocess

from django.template.defaultfilters import filesizeformat
from playwright.sync_api import Page, expect

from tests import live, sshd
from tests.e2e.conftest import Site, expect_state, row


def fetch(site: Site, *arguments: str) -> None:
    """Fetch the big file with curl, and check every byte of it."""
    got = subprocess.run(
        ["curl", "--silent", "--show-error", "--fail", "--max-time", "120", *arguments], capture_output=True, check=True
    )
    assert hashlib.sha256(got.stdout).hexdigest() == site.sha256


def add_forward(page: Page, name: str, kind: str, fields: dict[str, str]) -> None:
    page.get_by_role("button", name="Add Forward").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill(name)
    dialog.get_by_label("Type", exact=True).select_option(label=kind)
    dialog.get_by_label("Server", exact=True).select_option(label="My VPS")
    for label, value in fields.items():
        dialog.get_by_label(label, exact=True).fill(value)
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog).to_be_hidden()
    expect_state(page, name, "stopped")
    row(page, name).get_by_role("button", name="Start").click()
    expect_state(page, name, "listening")
    expect(row(page, name).get_by_text("Connected", exact=True)).to_be_visible()


def test_from_nothing_to_three_forwards_that_carry_100_mb(
    page: Page, dashboard: live.Dashboard, server: sshd.Sshd, site: Site
) -> None:
    page.get_by_role("link", name="Servers").first.click()
    page.get_by_role("button", name="Add Server").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("My VPS")
    dialog.get_by_label("Host", exact=True).fill("127.0.0.1")
    dialog.get_by_label("Port", exact=True).fill(str(server.port))
    dialog.get_by_label("User", exact=True).fill(server.user)
    dialog.get_by_label("Sign-in", exact=True).select_option(label="Key file")
    dialog.get_by_label("Key file", exact=True).fill(str(server.key))
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog).to_be_hidden()

    my_vps = row(page, "My VPS")
    my_vps.get_by_role("button", name="Test connection").click()
    expect(my_vps.get_by_text("not yet trusted", exact=False).first).to_be_visible()
    shown = subprocess.run(["ssh-keygen", "-lf", str(server.host_key)], capture_output=True, text=True, check=True)
    fingerprint = shown.stdout.split()[1]
    expect(my_vps.get_by_text(fingerprint)).to_be_visible()
    my_vps.get_by_role("button", name="Trust this key").click()
    expect(my_vps.get_by_role("button", name="Trust this key")).to_be_hidden()
    my_vps.get_by_role("button", name="Test connection").click()
    expect(my_vps.get_by_text("Signed in in")).to_be_visible()

    page.get_by_role("link", name="Port Forward").first.click()
    web, back, socks = (str(sshd.free_port()) for _ in range(3))
    here = str(site.port)
    add_forward(page, "Web", "Local", {"Local port": web, "Remote host": "127.0.0.1", "Remote port": here})
    fetch(site, f"http://127.0.0.1:{web}/big")
    add_forward(page, "Back", "Remote", {"Local host": "127.0.0.1", "Local port": here, "Remote port": back})
    fetch(site, f"http://127.0.0.1:{back}/big")
    add_forward(page, "Proxy", "Dynamic", {"Local port": socks})
    fetch(site, "--socks5-hostname", f"127.0.0.1:{socks}", f"http://localhost:{here}/big")

    for name in ("Web", "Back", "Proxy"):
        # Once the file is through, nobody is connected, and the client got all of it and some headers.
        expect(row(page, name).locator(".tw-cell-connections .tw-number")).to_have_text("0")
        got = row(page, name).locator(".tw-cell-in .tw-number")
        expect(got).to_have_text(filesizeformat(site.size))
        sent = row(page, name).locator(".tw-cell-out .tw-number")
        expect(sent).to_contain_text("bytes")

    row(page, "Web").get_by_role("button", name="Stop").click()
    expect_state(page, "Web", "stopped")
    refused = subprocess.run(["curl", "--silent", "--max-time", "5", f"http://127.0.0.1:{web}/big"], check=False)
    assert refused.returncode == 7, "nothing listens any more"
    expect_state(page, "Back", "listening")
