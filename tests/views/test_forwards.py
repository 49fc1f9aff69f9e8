import json

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from forwards.models import Forward, ForwardStatus, Server, Worker

TYPED = {
    "name": "MySQL to localhost",
    "kind": "local",
    "local_host": "127.0.0.1",
    "local_port": "3307",
    "remote_host": "127.0.0.1",
    "remote_port": "3306",
}


@pytest.fixture
def worker(db) -> Worker:
    now = timezone.now()
    return Worker.objects.create(name="default", hostname="here", pid=1, started_at=now, heartbeat_at=now)


def events(response) -> dict:
    return json.loads(response.headers.get("HX-Trigger", "{}"))


def names(response) -> list[str]:
    return [row["forward"].name for row in response.context["rows"]]


# The list


def test_without_servers_the_page_leads_to_add_one(browser):
    response = browser.get("/")
    assert "First, a server" in response.text
    assert reverse("forwards:servers") in response.text
    assert "Add a server first" in browser.get("/forwards/add/").text


def test_without_forwards_the_page_offers_to_add_one(browser, server):
    response = browser.get("/")
    assert "No forwards yet" in response.text
    assert 'hx-get="/forwards/add/"' in response.text
    assert "Add a server first" not in browser.get("/forwards/add/").text


def test_the_page_shows_rows_and_opens_the_websocket(browser, forward, worker):
    text = browser.get("/").text
    assert f'data-forward="{forward.pk}" data-state="stopped"' in text
    assert 'hx-ext="ws" ws-connect="/ws/dashboard/"' in text
    assert "hx-ws-2" in text


def test_nothing_in_the_page_needs_inline_scripts_or_styles(browser, forward):
    for url in ("/", "/servers/", "/forwards/add/", "/servers/add/"):
        text = browser.get(url).text
        assert "<style" not in text and " style=" not in text and "<script>" not in text
        assert " onclick" not in text and "hx-on" not in text and "javascript:" not in text
        assert "http://" not in text and "https://" not in text


def test_htmx_gets_the_list_alone_and_the_address_to_show(htmx, forward):
    response = htmx.get("/?q=&kind=local&state=&sort=-name&page=1&junk=x")
    assert response.text.lstrip().startswith('<section id="list"')
    assert response["HX-Push-Url"] == "?kind=local&sort=-name"
    assert "HX-Request" in response["Vary"]


def test_a_list_fetched_anew_is_no_step_in_the_history(htmx, forward):
    for query in ("", "kind=local&sort=-name"):
        response = htmx.get(f"/?{query}", headers={"HX-Current-URL": f"http://testserver/?{query}"})
        assert response.status_code == 200 and "HX-Push-Url" not in response


def test_a_page_restored_from_history_is_whole(htmx, forward):
    response = htmx.get("/", headers={"HX-History-Restore-Request": "true"})
    assert "<!doctype html>" in response.text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=mysql", ["MySQL"]),
        ("q=other", ["Proxy"]),
        ("q=3306", ["MySQL"]),
        ("q=db.internal", ["Web"]),
        ("q=%00", ["MySQL", "Proxy", "Web"]),
        ("q=９９", []),  # noqa: RUF001
        ("kind=dynamic", ["Proxy"]),
        ("kind=nonsense", ["MySQL", "Proxy", "Web"]),
        ("state=listening", ["Web"]),
        ("state=stopped", ["MySQL", "Proxy"]),
        ("state=failed", []),
        ("server=abc", ["MySQL", "Proxy", "Web"]),
        ("sort=-name", ["Web", "Proxy", "MySQL"]),
        ("sort=-in", ["Web", "MySQL", "Proxy"]),
        ("sort=password", ["MySQL", "Proxy", "Web"]),
        ("page=99", ["MySQL", "Proxy", "Web"]),
        ("page=x", ["MySQL", "Proxy", "Web"]),
    ],
)
def test_filter_and_order(browser, forward, worker, query, found):
    other = Server.objects.create(name="Other", host="other.example", user="x")
    Forward.objects.create(name="Proxy", kind="dynamic", server=other, local_port=1080, remote_host="")
    web = Forward.objects.create(
        name="Web", server=forward.server, local_port=1, remote_host="db.internal", remote_port=80, enabled=True
    )
    ForwardStatus.objects.create(forward=web, state="listening", bytes_in=7)
    assert names(browser.get(f"/?{query}")) == found


def test_filter_by_server(browser, forward):
    other = Server.objects.create(name="Other", host="other.example", user="x")
    Forward.objects.create(name="Proxy", kind="dynamic", server=other, local_port=1080, remote_host="")
    assert names(browser.get(f"/?server={other.pk}")) == ["Proxy"]


def test_a_filter_that_finds_nothing_can_be_cleared(browser, forward):
    text = browser.get("/?q=zzz").text
    assert "Nothing matches" in text and "Clear filter" in text
    assert 'value="zzz"' in text


def test_pages_hold_50_rows_and_keep_the_filter(browser, server):
    Forward.objects.bulk_create(
        Forward(name=f"f{number:03}", server=server, local_port=number, remote_port=1) for number in range(1, 121)
    )
    first = browser.get("/?kind=local")
    assert len(first.context["rows"]) == 50
    assert 'href="?kind=local&amp;page=2"' in first.text
    assert names(browser.get("/?page=3"))[-1] == "f120"


def test_the_number_of_queries_does_not_grow_with_the_rows(browser, server, worker, django_assert_num_queries):
    def add(numbers: range) -> None:
        for number in numbers:
            forward = Forward.objects.create(
                name=f"f{number:03}", server=server, local_port=number, remote_port=1, enabled=True
            )
            ForwardStatus.objects.create(forward=forward, state="failed", reason="port_in_use", params={"port": 1})

    counts = []
    for numbers in (range(1, 11), range(11, 61)):
        add(numbers)
        with django_assert_num_queries(6, exact=False) as queries:
            browser.get("/")
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_a_hostile_name_is_text_in_list_and_dialogs(browser, htmx, forward):
    bad = "<img src=x onerror=alert(1)>"
    Forward.objects.update(name=bad, enabled=True)
    Server.objects.update(name=bad)
    for url in ("/", "/?q=<img", "/servers/", *(f"/forwards/{forward.pk}/{what}/" for what in ("edit", "delete"))):
        assert "<img src=x" not in browser.get(url).text
        assert "<img src=x" not in htmx.get(url).text


# Dialogs


def test_the_add_dialog_has_the_labels_people_know(htmx, server):
    text = htmx.get("/forwards/add/").text
    assert "<!doctype" not in text
    for label in ("Name", "Type", "Server", "Local host", "Local port", "Remote host", "Remote port"):
        assert f">{label}</label>" in text
    for preset in ("MySQL", "PostgreSQL", "Redis", "MongoDB", "Web app", "Jupyter"):
        assert f">{preset}</button>" in text
    assert ">Add</button>" in text and ">Cancel</button>" in text


def test_a_dialog_opened_by_its_address_is_a_page(browser, server):
    assert "<!doctype html>" in browser.get("/forwards/add/").text


def test_adding_closes_the_dialog_and_loads_the_list_anew(htmx, server):
    response = htmx.post("/forwards/add/", {**TYPED, "server": server.pk})
    assert response.status_code == 204
    assert set(events(response)) == {"tw:close-dialog", "tw:refresh", "tw:toast"}
    assert Forward.objects.get().name == "MySQL to localhost"


def test_a_browser_without_scripts_gets_back_to_the_list(browser, server):
    response = browser.post("/forwards/add/", {**TYPED, "server": server.pk})
    assert (response.status_code, response["Location"]) == (302, "/")


def test_a_form_with_an_error_keeps_everything_typed(htmx, server):
    response = htmx.post("/forwards/add/", {**TYPED, "server": server.pk, "local_port": "70000", "remote_host": "a..b"})
    assert response.status_code == 200
    for kept in ('value="70000"', 'value="a..b"', 'value="MySQL to localhost"', 'value="3306"'):
        assert kept in response.text
    assert "Enter a port between 0 and 65535" in response.text
    assert "not a host name" in response.text
    assert 'id="id_local_port_error"' in response.text
    assert not Forward.objects.exists()


def test_a_second_forward_on_the_same_port_is_saved_when_one_insists(htmx, forward):
    typed = {**TYPED, "server": forward.server.pk}
    response = htmx.post("/forwards/add/", typed)
    assert "Save it anyway" in response.text and "“MySQL”" in response.text
    assert 'value="MySQL to localhost"' in response.text
    assert htmx.post("/forwards/add/", {**typed, "save_anyway": "on"}).status_code == 204
    assert Forward.objects.count() == 2


def test_editing_a_stopped_forward_shows_and_stores_its_values(htmx, forward):
    text = htmx.get(f"/forwards/{forward.pk}/edit/").text
    assert "Edit Forward" in text and 'value="3307"' in text and ">Save</button>" in text
    response = htmx.post(f"/forwards/{forward.pk}/edit/", {**TYPED, "server": forward.server.pk, "local_port": "3309"})
    assert response.status_code == 204
    forward.refresh_from_db()
    assert (forward.local_port, forward.name) == (3309, "MySQL to localhost")


def test_editing_a_running_forward_offers_to_stop_it_first(htmx, forward):
    Forward.objects.update(enabled=True)
    text = htmx.get(f"/forwards/{forward.pk}/edit/").text
    assert "Stop and edit" in text and "Local port" not in text
    response = htmx.post(f"/forwards/{forward.pk}/stop-and-edit/")
    assert 'value="3307"' in response.text
    forward.refresh_from_db()
    assert not forward.enabled


def test_delete_asks_and_names_the_forward(htmx, forward):
    text = htmx.get(f"/forwards/{forward.pk}/delete/").text
    assert "MySQL" in text and ">Delete</button>" in text
    assert Forward.objects.exists()
    assert htmx.post(f"/forwards/{forward.pk}/delete/").status_code == 204
    assert not Forward.objects.exists()


# Buttons


def test_start_and_stop_write_what_is_wanted_and_change_nothing_in_the_page(htmx, forward):
    response = htmx.post(f"/forwards/{forward.pk}/start/")
    assert (response.status_code, response.content) == (204, b"")
    forward.refresh_from_db()
    assert forward.enabled
    assert htmx.post(f"/forwards/{forward.pk}/stop/").status_code == 204
    forward.refresh_from_db()
    assert not forward.enabled


def test_take_port_moves_the_forward_and_starts_it(htmx, forward):
    assert htmx.post(f"/forwards/{forward.pk}/take-port/", {"port": "3308"}).status_code == 204
    forward.refresh_from_db()
    assert (forward.local_port, forward.enabled) == (3308, True)


@pytest.mark.parametrize("port", ["70000", "", "-1", "1e3"])
def test_take_port_refuses_what_is_no_port(htmx, forward, port):
    response = htmx.post(f"/forwards/{forward.pk}/take-port/", {"port": port})
    assert events(response)["tw:toast"]["level"] == "danger"
    forward.refresh_from_db()
    assert (forward.local_port, forward.enabled) == (3307, False)


def test_take_port_is_not_for_remote_forwards(htmx, forward):
    Forward.objects.update(kind="remote")
    assert htmx.post(f"/forwards/{forward.pk}/take-port/", {"port": "3308"}).status_code == 404


# Doors

FORWARD_URLS = ["edit", "delete", "start", "stop", "take-port", "stop-and-edit"]
SERVER_URLS = ["server-edit", "server-delete", "server-test", "server-trust", "server-accept-key"]


@pytest.mark.parametrize("name", ["list", "add", "servers", "server-add", *FORWARD_URLS, *SERVER_URLS])
@pytest.mark.parametrize("method", ["get", "post"])
def test_every_address_asks_for_a_signed_in_user(db, server, forward, name, method):
    pk = (server if name in SERVER_URLS else forward).pk
    url = reverse(f"forwards:{name}", args=[pk] if name in (*FORWARD_URLS, *SERVER_URLS) else [])
    response = getattr(Client(), method)(url)
    assert response.status_code == 302
    assert response["Location"].startswith("/sign-in/?next=")
    part = getattr(Client(headers={"HX-Request": "true", "HX-Current-URL": "http://testserver/?q=a"}), method)(url)
    assert part.status_code == 200 and not part.content
    assert part["HX-Redirect"] == "/sign-in/?next=%2F%3Fq%3Da"


@pytest.mark.parametrize("name", [*FORWARD_URLS, *SERVER_URLS])
@pytest.mark.parametrize("pk", [4711, 10**30])
def test_what_is_not_there_is_404(htmx, name, pk):
    assert htmx.post(reverse(f"forwards:{name}", args=[pk])).status_code == 404


@pytest.mark.parametrize("name", ["start", "stop", "take-port", "stop-and-edit", "server-test", "server-trust"])
def test_what_changes_something_is_not_done_by_a_link(browser, server, forward, name):
    assert browser.get(reverse(f"forwards:{name}", args=[forward.pk])).status_code == 405


def test_a_post_without_the_token_of_the_page_is_refused(owner, forward):
    client = Client(enforce_csrf_checks=True)
    client.force_login(owner)
    assert client.post(f"/forwards/{forward.pk}/start/").status_code == 403
    forward.refresh_from_db()
    assert not forward.enabled
