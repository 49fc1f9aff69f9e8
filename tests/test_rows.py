from datetime import timedelta
from html.parser import HTMLParser

import pytest
from django.utils import timezone

from forwards import rows
from forwards.models import (
    ConnectionTest,
    Forward,
    ForwardKind,
    ForwardStatus,
    HostKey,
    Server,
    ServerStatus,
)
from tests.factories import make_forward, make_server, set_status

pytestmark = pytest.mark.django_db

NEW, OLD = "SHA256:" + "n" * 43, "SHA256:" + "o" * 43


class Tags(HTMLParser):
    """Counts the tags of a fragment and notes those left open."""

    VOID = frozenset({"input", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes.update(attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def server() -> Server:
    return Server.objects.create(name="My VPS", host="vps.example.com", user="deploy")


def make(server: Server, state: str = "", *, kind: str = "local", enabled: bool = True, **status: object) -> Forward:
    forward = Forward.objects.create(
        name="MySQL", kind=kind, server=server, local_port=3307, remote_port=3306, enabled=enabled
    )
    if state:
        ForwardStatus.objects.create(forward=forward, state=state, **status)
    return Forward.objects.for_rows().get(pk=forward.pk)


def row(forward: Forward, *, alive: bool = True) -> str:
    return rows.render_forward_row(forward, worker_alive=alive)


def words(html: str) -> str:
    parts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = parts.append  # type: ignore[method-assign]
    parser.feed(html)
    return " ".join(" ".join(parts).split())


def test_a_row_names_its_forward_and_its_state(server):
    forward = make(server, "listening", connections=3, bytes_in=2048, bytes_out=5)
    html = row(forward)
    assert html.startswith(f'<tr role="row" id="forward-{forward.pk}"')
    assert f'data-forward="{forward.pk}" data-state="listening"' in html
    text = words(html)
    assert "Connected" in text and "127.0.0.1:3307 → My VPS → 127.0.0.1:3306" in text
    assert f"listens on {rows.here()}" in text
    assert Tags(html).open == []


@pytest.mark.parametrize(
    ("state", "enabled", "word", "buttons"),
    [
        ("", False, "Disconnected", ["Start"]),
        ("starting", True, "Connecting", ["Stop"]),
        ("listening", True, "Connected", ["Stop"]),
        ("retrying", True, "Reconnecting", ["Stop"]),
        ("failed", True, "Error", ["Start", "Stop"]),
    ],
)
def test_each_state_has_its_word_and_its_buttons(server, state, enabled, word, buttons):
    html = row(make(server, state, enabled=enabled))
    assert word in words(html)
    assert [name for name in ("Start", "Stop") if f'aria-label="{name}"' in html] == buttons
    assert 'aria-label="Edit"' in html and 'aria-label="Delete"' in html


def test_without_a_worker_a_running_forward_is_not_green(server):
    html = row(make(server, "listening"), alive=False)
    assert 'data-state="unknown"' in html
    assert "status-green" not in html
    assert "worker is not running" in html


def test_a_remote_forward_listens_on_the_server(server):
    text = words(row(make(server, kind="remote")))
    assert f"127.0.0.1:3306 → {rows.here()} → 127.0.0.1:3307" in text
    assert "listens on My VPS" in text


def test_a_third_host_is_reached_without_encryption_and_the_row_says_so(server):
    forward = make(server)
    assert "is encrypted" not in row(forward)
    for same in ("localhost", "::1", "127.0.0.2", "VPS.example.com"):
        forward.remote_host = same
        assert "is encrypted" not in row(forward)
    forward.remote_host = "mail.example.com"
    expected = "Only the leg to My VPS is encrypted; from My VPS to mail.example.com:3306 it is not."
    assert expected in words(row(forward))


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "::", "::ffff:0.0.0.0", "192.0.2.7"])
def test_a_port_other_machines_may_use_is_marked(server, host):
    forward = make(server)
    assert "Exposed" not in row(forward)
    forward.local_host = host
    assert "Exposed" in row(forward)


def test_a_retrying_row_says_which_attempt_and_when_the_next_is(server):
    html = row(make(server, "retrying", attempt=4, retry_at=timezone.now() + timedelta(seconds=12), reason="timeout",
                    params={"host": "vps.example.com", "port": 22}))  # fmt: skip
    assert "Attempt 4" in html
    assert 'data-retry-in="12"' in html
    assert "did not answer on port 22" in html


def test_a_retry_that_is_due_never_counts_below_zero(server):
    html = row(make(server, "retrying", attempt=1, retry_at=timezone.now() - timedelta(seconds=5)))
    assert 'data-retry-in="0"' in html


def test_an_unknown_host_key_can_be_trusted_in_the_row_also_that_of_a_jump_host(server):
    params = {"server": "jump", "server_id": 77, "algorithm": "ssh-ed25519", "fingerprint": NEW}
    direct = row(make(server, "failed", reason="hostkey_unknown", params=params))
    through = row(make(server, "failed", reason="jump_failed", params={
        **params, "jump": "jump", "detail_code": "hostkey_unknown",
    }))  # fmt: skip
    for html in (direct, through):
        assert "/servers/77/trust/" in html
        assert f'name="fingerprint" value="{NEW}"' in html
        assert "Trust this key" in html and "ssh-ed25519" in html


def test_a_changed_host_key_shows_both_and_leads_to_its_own_page(server):
    params = {"server": "x", "server_id": server.pk, "old_fingerprint": OLD, "fingerprint": NEW}
    html = row(make(server, "failed", reason="hostkey_changed", params=params))
    assert OLD in html and NEW in html
    assert f'href="/servers/{server.pk}/accept-key/"' in html
    assert "Trust this key" not in html


def test_a_port_in_use_offers_the_free_one_where_this_machine_listens(server):
    reason = {"reason": "port_in_use", "params": {"port": 3307, "free_port": 3308}}
    assert "Use port 3308 instead" in row(make(server, "failed", **reason))
    assert "Use port 3308 instead" not in row(make(server, "failed", kind="remote", **reason))


def test_html_and_direction_marks_in_names_are_text(server):
    forward = make(server)
    forward.name = "<img src=x onerror=alert(1)>\u202egnp.exe\x1b[31m"
    forward.server.name = "<script>alert(1)</script>"
    html = row(forward)
    assert not {"img", "script"} & set(Tags(html).seen)
    assert "\u202e" not in html and "\x1b" not in html


def test_html_from_a_hostile_server_is_text(server):
    html = row(make(server, "failed", reason="kex_failed", params={"server": "x", "detail": "<img onerror=1>\u202e"}))
    assert "img" not in Tags(html).seen
    assert "\u202e" not in html


def test_an_update_replaces_the_row_and_may_travel_with_others(server):
    forward = make(server)
    html = rows.forward_row_oob(forward, worker_alive=True)
    assert html.startswith("<template><tr") and html.rstrip().endswith("</template>")
    assert html.count('hx-swap-oob="true"') == 1
    assert html.replace(' hx-swap-oob="true"', "") == f"<template>{row(forward)}</template>"


def test_counters_read_as_in_the_row(server):
    forward = make(server, "listening", connections=1234, bytes_in=2048, bytes_out=1)
    html = row(forward)
    numbers = {"id": forward.pk, "connections": 1234, "bytes_in": 2048, "bytes_out": 1}
    for span in rows.counters_oob([numbers]).replace(' hx-swap-oob="true"', "").split("</span>")[:-1]:
        assert f"{span}</span>" in html
    assert rows.counters_oob([]) == ""
    assert rows.counters_oob([{"id": 5, "bytes_in": 1}]).count("<span") == 1


def test_a_refresh_names_its_list():
    tags = Tags(rows.refresh_oob(rows.FORWARD_LIST))
    assert (tags.attributes["id"], tags.attributes["data-refresh"]) == ("live-refresh", "forwards")


# Servers


def server_row(server: Server, *, alive: bool = True) -> str:
    return rows.render_server_row(rows.servers_for_rows().get(pk=server.pk), worker_alive=alive)


def test_a_server_row_says_who_signs_in_where_and_that_no_key_is_trusted(server):
    make(server)
    html = server_row(server)
    assert html.startswith(f'<tr role="row" id="server-{server.pk}"')
    text = words(html)
    assert "deploy@vps.example.com:22" in text and "SSH agent" in text
    assert "not yet trusted" in text and "Not connected" in text and "Forwards 1" in text
    assert Tags(html).open == []


def test_a_server_row_shows_trusted_keys_and_the_jump_host(server):
    HostKey.objects.create(server=server, algorithm="ssh-ed25519", public_key="ssh-ed25519 A", fingerprint=OLD)
    server.proxy_jump = Server.objects.create(name="Jump", host="::1", user="x")
    server.save()
    html = server_row(server)
    assert OLD in html and "through" in html and "Jump" in html
    assert "[::1]:22" in server_row(server.proxy_jump)


def test_a_server_that_waits_for_trust_can_be_trusted_in_its_row(server):
    params = {"server": server.name, "server_id": server.pk, "algorithm": "ssh-ed25519", "fingerprint": NEW}
    ServerStatus.objects.create(server=server, state="failed", reason="hostkey_unknown", params=params)
    html = server_row(server)
    assert "Trust this key" in html and NEW in html
    assert "status-red" in html


def test_the_outcome_of_a_test_is_shown_in_place(server):
    test = ConnectionTest.objects.create(server=server, requested_at=timezone.now())
    assert "Testing the connection" in server_row(server)
    assert "the test waits" in server_row(server, alive=False)
    test.finished_at, test.milliseconds = timezone.now(), 84
    test.save()
    assert "Signed in in 84 ms" in server_row(server)
    test.reason, test.params = "auth_failed_password", {"server": "My VPS", "user": "deploy"}
    test.save()
    assert "refused the password of deploy" in server_row(server)


def test_a_test_that_met_an_unknown_key_offers_to_trust_it_once(server):
    params = {"server": server.name, "server_id": server.pk, "algorithm": "ssh-ed25519", "fingerprint": NEW}
    ServerStatus.objects.create(server=server, state="failed", reason="hostkey_unknown", params=params)
    now = timezone.now()
    ConnectionTest.objects.create(
        server=server, requested_at=now, finished_at=now, reason="hostkey_unknown", params=params
    )
    assert server_row(server).count("Trust this key") == 1


def test_a_server_update_is_the_row_and_needs_no_request(server):
    known = rows.servers_for_rows().get(pk=server.pk)
    html = rows.server_row_oob(known, worker_alive=True)
    assert html.replace(' hx-swap-oob="true"', "") == f"<template>{server_row(server)}</template>"
    assert f'id="server-{server.pk}"' in rows.render_server_row(Server.objects.get(pk=server.pk), worker_alive=True)


def test_every_kind_of_forward_has_a_row(server):
    for kind in ForwardKind.values:
        assert Tags(row(make(server, "listening", kind=kind))).open == []


def test_a_port_the_server_opened_for_itself_only_is_not_called_exposed() -> None:
    forward = make_forward(kind="remote", remote_host="0.0.0.0", local_host="127.0.0.1", enabled=True)
    set_status(forward, "listening", public="no", allocated_port=3306)

    html = rows.render_forward_row(Forward.objects.for_rows().get(), worker_alive=True)

    assert "for itself only" in html
    assert "Exposed" not in html and "Other machines may use" not in html


def test_an_old_test_hides_nothing_the_connection_told_since() -> None:
    server = make_server(name="VPS")
    now = timezone.now()
    ConnectionTest.objects.create(
        server=server, requested_at=now - timedelta(hours=2), finished_at=now - timedelta(hours=1), reason="refused",
        params={"host": "vps.example.com", "port": 22},
    )  # fmt: skip
    changed = {"server": "VPS", "server_id": server.pk, "fingerprint": "SHA256:new", "old_fingerprint": "SHA256:old"}
    ServerStatus.objects.create(server=server, state="failed", reason="hostkey_changed", params=changed, since=now)

    html = rows.render_server_row(server, worker_alive=True)

    assert "has changed" in html and "SHA256:old" in html and "refuses SSH" not in html


def test_a_port_that_is_not_public_says_so_beside_a_destination_that_refuses() -> None:
    forward = make_forward(kind="remote", remote_host="0.0.0.0", local_host="127.0.0.1", enabled=True)
    params = {"server": forward.server.name, "dest": "127.0.0.1:3307"}
    set_status(forward, "listening", public="no", allocated_port=3306, reason="dest_refused_here", params=params)

    html = rows.render_forward_row(Forward.objects.for_rows().get(), worker_alive=True)

    assert "refuses connections" in html and "for itself only" in html


def test_a_server_whose_host_nobody_checked_breaks_no_page() -> None:
    assert "é" in rows.render_server_row(make_server(host="é" * 70), worker_alive=True)
