import json

import asyncssh
import pytest
from django.utils import timezone

from forwards.models import ConnectionTest, Forward, HostKey, Server, ServerStatus
from forwards.sealing import unseal

OLD, NEW = "SHA256:" + "o" * 43, "SHA256:" + "n" * 43
TYPED = {
    "name": "Box",
    "host": "box.example.com",
    "port": "22",
    "user": "me",
    "auth": "password",
    "password": "hunter22",
    "keepalive_interval": "15",
    "keepalive_count_max": "3",
    "connect_timeout": "15",
}


def events(response) -> dict:
    return json.loads(response.headers.get("HX-Trigger", "{}"))


@pytest.fixture
def presented(server: Server) -> ServerStatus:
    return ServerStatus.objects.create(
        server=server,
        state="failed",
        presented_key="ssh-ed25519 NEW",
        presented_fingerprint=NEW,
        presented_by=server.address,
    )


def trusted(server: Server) -> HostKey:
    return HostKey.objects.create(server=server, algorithm="ssh-ed25519", public_key="ssh-ed25519 OLD", fingerprint=OLD)


# The list


def test_an_empty_page_offers_to_add_a_server(browser):
    text = browser.get("/servers/").text
    assert "No servers yet" in text and "Add Server" in text


def test_the_page_lists_servers_and_opens_the_websocket(browser, server):
    text = browser.get("/servers/").text
    assert f'id="server-{server.pk}"' in text and "deploy@vps.example.com:22" in text
    assert 'ws-connect="/ws/dashboard/"' in text
    assert "Test connection" in text


def test_servers_can_be_searched_and_sorted(browser, server):
    Server.objects.create(name="Another", host="a.example", user="x")
    assert [row["server"].name for row in browser.get("/servers/?q=vps").context["rows"]] == ["My VPS"]
    assert [row["server"].name for row in browser.get("/servers/?sort=-name").context["rows"]] == ["My VPS", "Another"]
    assert "Clear filter" in browser.get("/servers/?q=zzz").text


def test_htmx_gets_the_list_alone(htmx, server):
    assert htmx.get("/servers/").text.lstrip().startswith('<section id="list"')


def test_the_number_of_queries_does_not_grow_with_the_rows(browser, server, django_assert_num_queries):
    counts = []
    for numbers in (range(5), range(5, 40)):
        for number in numbers:
            each = Server.objects.create(name=f"s{number}", host="h.example", user="x", proxy_jump=server)
            Forward.objects.create(name="f", server=each, local_port=number, remote_port=1)
            trusted(each)
            ServerStatus.objects.create(server=each)
            ConnectionTest.objects.create(server=each, requested_at=timezone.now())
        with django_assert_num_queries(6, exact=False) as queries:
            browser.get("/servers/")
        counts.append(len(queries))
    assert counts[0] == counts[1]


# Dialogs


def test_adding_a_server_seals_its_password(htmx):
    response = htmx.post("/servers/add/", TYPED)
    assert response.status_code == 204
    assert set(events(response)) == {"tw:close-dialog", "tw:refresh", "tw:toast"}
    assert unseal(Server.objects.get().password_sealed) == "hunter22"


def test_a_form_with_an_error_keeps_what_was_typed_but_never_a_secret(htmx, server):
    key = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    response = htmx.post("/servers/add/", {**TYPED, "port": "x1", "key_text": key, "passphrase": "open-sesame"})
    assert 'value="x1"' in response.text and 'value="box.example.com"' in response.text
    for secret in ("hunter22", "open-sesame", key.splitlines()[1]):
        assert secret not in response.text
    assert Server.objects.count() == 1


def test_editing_shows_that_a_secret_is_stored_and_keeps_it_when_left_empty(htmx):
    htmx.post("/servers/add/", TYPED)
    server = Server.objects.get()
    text = htmx.get(f"/servers/{server.pk}/edit/").text
    assert "stored — leave empty to keep" in text
    assert "hunter22" not in text and server.password_sealed not in text
    response = htmx.post(f"/servers/{server.pk}/edit/", {**TYPED, "name": "New name", "password": ""})
    assert response.status_code == 204
    server.refresh_from_db()
    assert (server.name, unseal(server.password_sealed)) == ("New name", "hunter22")


def test_a_server_in_use_is_not_deleted_and_the_dialog_says_why(htmx, server, forward):
    behind = Server.objects.create(name="Behind", host="b.example", user="x", proxy_jump=server)
    text = htmx.get(f"/servers/{server.pk}/delete/").text
    assert "cannot be deleted" in text and forward.name in text and behind.name in text
    response = htmx.post(f"/servers/{server.pk}/delete/")
    assert response.status_code == 200 and "cannot be deleted" in response.text
    assert Server.objects.filter(pk=server.pk).exists()


def test_an_unused_server_is_deleted_after_asking(htmx, server):
    assert "My VPS" in htmx.get(f"/servers/{server.pk}/delete/").text
    assert htmx.post(f"/servers/{server.pk}/delete/").status_code == 204
    assert not Server.objects.exists()


# Testing and trusting


def test_test_connection_asks_the_worker_and_changes_nothing_in_the_page(htmx, server):
    response = htmx.post(f"/servers/{server.pk}/test/")
    assert (response.status_code, response.content) == (204, b"")
    assert ConnectionTest.objects.get().finished_at is None


def test_trusting_stores_the_key_with_the_person(htmx, owner, server, presented):
    assert htmx.post(f"/servers/{server.pk}/trust/", {"fingerprint": NEW}).status_code == 204
    key = server.host_keys.get()
    assert (key.fingerprint, key.public_key, key.trusted_by) == (NEW, "ssh-ed25519 NEW", owner)


@pytest.mark.parametrize("fingerprint", [OLD, "", "nonsense"])
def test_a_key_that_is_no_longer_shown_is_not_trusted(htmx, server, presented, fingerprint):
    response = htmx.post(f"/servers/{server.pk}/trust/", {"fingerprint": fingerprint})
    assert "another key now" in events(response)["tw:toast"]["text"]
    assert "tw:refresh" in events(response)
    assert not server.host_keys.exists()


def test_a_changed_key_is_not_trusted_by_the_button_in_the_row(htmx, server, presented):
    trusted(server)
    htmx.post(f"/servers/{server.pk}/trust/", {"fingerprint": NEW})
    assert [key.fingerprint for key in server.host_keys.all()] == [OLD]


def test_the_page_for_a_changed_key_shows_both_and_says_what_it_may_mean(browser, server, presented):
    trusted(server)
    text = browser.get(f"/servers/{server.pk}/accept-key/").text
    assert OLD in text and NEW in text
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in text
    assert "reinstalled" in text and "pretends to be it" in text


def test_a_changed_key_is_accepted_only_with_the_box_ticked(browser, server, presented):
    trusted(server)
    response = browser.post(f"/servers/{server.pk}/accept-key/", {"fingerprint": NEW})
    assert "Compare the fingerprints first" in response.text
    assert server.host_keys.get().fingerprint == OLD
    response = browser.post(f"/servers/{server.pk}/accept-key/", {"fingerprint": NEW, "compared": "on"})
    assert response.status_code == 302 and response["Location"] == "/servers/"
    assert server.host_keys.get().fingerprint == NEW


def test_a_key_that_changed_again_meanwhile_is_shown_to_be_compared_anew(browser, server, presented):
    trusted(server)
    newest = "SHA256:" + "x" * 43
    ServerStatus.objects.update(presented_fingerprint=newest)
    response = browser.post(f"/servers/{server.pk}/accept-key/", {"fingerprint": NEW, "compared": "on"})
    assert "another key by now" in response.text
    assert f'value="{newest}"' in response.text and "checked" not in response.text
    assert server.host_keys.get().fingerprint == OLD


def test_a_key_shown_by_another_machine_or_trusted_already_does_not_wait(browser, server, presented):
    url = f"/servers/{server.pk}/accept-key/"
    ServerStatus.objects.update(presented_by="other.example:22")
    assert "no key that waits" in browser.get(url).text
    ServerStatus.objects.update(presented_by=server.address, presented_key="ssh-ed25519 OLD")
    trusted(server)
    assert "no key that waits" in browser.get(url).text
