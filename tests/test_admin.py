import re

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from forwards.models import Forward, HostKey, Server
from tests.factories import beat, make_forward, make_server, set_status

pytestmark = pytest.mark.django_db

SERVER = {
    "name": "My VPS",
    "host": "ssh.example",
    "port": "22",
    "user": "me",
    "auth": "agent",
    "keepalive_interval": "15",
    "keepalive_count_max": "3",
    "connect_timeout": "15",
    "host_keys-TOTAL_FORMS": "0",
    "host_keys-INITIAL_FORMS": "0",
}


@pytest.fixture
def client(admin_client: Client) -> Client:
    return admin_client


def forward_data(server: Server, **fields: str) -> dict[str, str]:
    sides = {"local_host": "127.0.0.1", "local_port": "3307", "remote_host": "127.0.0.1", "remote_port": "3306"}
    return {"name": "MySQL", "kind": "local", "server": str(server.pk), "probe": "on", **sides, **fields}


def texts(answer) -> list[str]:
    """Return the messages shown on a page."""
    return [str(message) for message in answer.context["messages"]]


def errors(answer) -> set[str]:
    assert answer.status_code == 200
    return set(answer.context["adminform"].form.errors)


def act(client: Client, action: str, *forwards: Forward):
    data = {"action": action, "_selected_action": [str(forward.pk) for forward in forwards]}
    return client.post("/admin/forwards/forward/", data, follow=True)


def viewer(*codenames: str) -> Client:
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(user)
    return client


# Pages


@pytest.mark.parametrize(
    "path",
    [
        "",
        "forwards/server/",
        "forwards/server/add/",
        "forwards/forward/",
        "forwards/forward/add/",
        "auth/user/",
        "auth/group/",
    ],
)
def test_every_page_opens(client, path) -> None:
    make_forward()

    assert client.get(f"/admin/{path}").status_code == 200


def test_what_the_worker_writes_cannot_be_edited(client) -> None:
    page = client.get("/admin/").content.decode()

    assert set(re.findall(r'href="/admin/forwards/(\w+)/"', page)) == {"server", "forward"}


def test_the_list_shows_states_as_the_dashboard_does(client) -> None:
    beat()
    on, off = make_forward(enabled=True), make_forward(local_port=4000)
    set_status(on, "listening")
    set_status(off, "stopped")
    page = client.get("/admin/forwards/forward/").content.decode()

    assert '<span data-state="listening">Connected</span>' in page
    assert '<span data-state="stopped">Disconnected</span>' in page
    assert "127.0.0.1:3307 →" in page


def test_the_list_is_never_green_without_a_worker(client) -> None:
    set_status(make_forward(enabled=True), "listening")

    assert 'data-state="unknown"' in client.get("/admin/forwards/forward/").content.decode()


def test_the_list_takes_no_more_queries_for_more_rows(client, django_assert_max_num_queries) -> None:
    for number in range(20):
        set_status(make_forward(local_port=2000 + number, enabled=True), "listening")

    with django_assert_max_num_queries(12):
        client.get("/admin/forwards/forward/")


@pytest.mark.parametrize(
    "query", ["q=mysql", "q=3307", "q=Server", "kind__exact=local", "enabled__exact=0", "q=%00", "q=x' OR 1"]
)
def test_the_list_can_be_searched_and_filtered(client, query) -> None:
    make_forward()

    assert client.get(f"/admin/forwards/forward/?{query}").status_code == 200


def test_a_forward_says_what_is_wrong_with_it(client) -> None:
    beat()
    forward = make_forward(enabled=True)
    set_status(forward, "failed", reason="port_in_use", params={"port": 3307})
    page = client.get(f"/admin/forwards/forward/{forward.pk}/change/").content.decode()

    assert "Port 3307 is already in use on this machine." in page


# Servers


def test_a_server_can_be_added(client) -> None:
    client.post("/admin/forwards/server/add/", SERVER)

    assert Server.objects.get().host == "ssh.example"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", "a..b"),
        ("host", "a b"),
        ("host", "x" * 300),
        ("user", ""),
        ("port", "0"),
        ("port", "70000"),
        ("port", "-1"),
    ]
    + [("port", "２２"), ("port", "1e3"), ("port", ""), ("keepalive_interval", "0")],
)
def test_bad_input_is_refused_as_in_the_page_and_kept(client, field, value) -> None:
    answer = client.post("/admin/forwards/server/add/", {**SERVER, field: value})

    assert errors(answer) == {field}
    assert f'value="{value}"' in answer.content.decode() or value == ""
    assert not Server.objects.exists()


@pytest.mark.parametrize("path", ["/etc", "/dev/zero", "/nonexistent", "/etc/passwd", "../x", "\0"])
def test_a_key_file_that_is_none_is_refused_with_one_and_the_same_error(client, path) -> None:
    answer = client.post("/admin/forwards/server/add/", {**SERVER, "auth": "key_file", "key_path": path})

    assert errors(answer) == {"key_path"}


def test_a_secret_is_stored_sealed_and_never_shown_again(client) -> None:
    client.post("/admin/forwards/server/add/", {**SERVER, "auth": "password", "password": "s3cret-word"})
    server = Server.objects.get()
    stored = server.password_sealed

    assert server.spec().password == "s3cret-word"
    page = client.get(f"/admin/forwards/server/{server.pk}/change/").content.decode()
    assert "s3cret-word" not in page
    assert stored not in page


def test_an_empty_secret_keeps_the_stored_one(client) -> None:
    client.post("/admin/forwards/server/add/", {**SERVER, "auth": "password", "password": "s3cret-word"})
    server = Server.objects.get()
    client.post(f"/admin/forwards/server/{server.pk}/change/", {**SERVER, "name": "Renamed", "auth": "password"})
    server.refresh_from_db()

    assert server.name == "Renamed"
    assert server.spec().password == "s3cret-word"


def test_a_secret_in_a_refused_form_is_not_sent_back(client) -> None:
    data = {**SERVER, "host": "a..b", "auth": "password", "password": "s3cret-word"}

    assert "s3cret-word" not in client.post("/admin/forwards/server/add/", data).content.decode()


def test_a_stored_passphrase_can_be_removed(client) -> None:
    server = make_server(**{name: SERVER[name] for name in ("name", "host", "user")})
    assert "forget_passphrase" not in client.get(f"/admin/forwards/server/{server.pk}/change/").content.decode()
    server.set_secret("passphrase", "s3cret-word")
    server.save()

    assert "forget_passphrase" in client.get(f"/admin/forwards/server/{server.pk}/change/").content.decode()


def test_another_machine_under_the_same_name_loses_its_trusted_keys(client) -> None:
    server = make_server(name="My VPS")
    key = HostKey.objects.create(server=server, algorithm="a", public_key="a b", fingerprint="f")
    data = {
        **SERVER,
        "host": "other.example",
        "host_keys-TOTAL_FORMS": "1",
        "host_keys-INITIAL_FORMS": "1",
        "host_keys-0-id": str(key.pk),
        "host_keys-0-server": str(server.pk),
    }
    client.post(f"/admin/forwards/server/{server.pk}/change/", data)

    assert Server.objects.get().host == "other.example"
    assert not HostKey.objects.exists()


def test_a_trusted_key_can_be_forgotten_but_not_changed_or_added(client) -> None:
    server = make_server(name="My VPS")
    key = HostKey.objects.create(server=server, algorithm="a", public_key="a b", fingerprint="f")
    url = f"/admin/forwards/server/{server.pk}/change/"
    data = {
        **SERVER,
        "host_keys-TOTAL_FORMS": "2",
        "host_keys-INITIAL_FORMS": "1",
        "host_keys-0-id": str(key.pk),
        "host_keys-0-server": str(server.pk),
        "host_keys-0-fingerprint": "planted",
        "host_keys-1-server": str(server.pk),
        "host_keys-1-fingerprint": "planted",
        "host_keys-1-public_key": "planted",
    }
    client.post(url, data)
    assert [key.fingerprint for key in HostKey.objects.all()] == ["f"]

    client.post(url, {**data, "host_keys-TOTAL_FORMS": "1", "host_keys-0-DELETE": "on"})
    assert not HostKey.objects.exists()


def test_a_jump_loop_is_refused(client) -> None:
    a = make_server(name="My VPS")
    b = make_server(proxy_jump=a)
    answer = client.post(f"/admin/forwards/server/{a.pk}/change/", {**SERVER, "proxy_jump": str(b.pk)})

    assert errors(answer) == {"proxy_jump"}


@pytest.mark.parametrize("by_action", [True, False])
def test_a_server_that_carries_forwards_is_not_deleted_and_they_are_named(client, by_action) -> None:
    forward = make_forward(name="Precious")
    pk = forward.server_id
    if by_action:
        data = {"action": "delete_selected", "_selected_action": [str(pk)], "post": "yes"}
        answer = client.post("/admin/forwards/server/", data)
    else:
        answer = client.post(f"/admin/forwards/server/{pk}/delete/", {"post": "yes"})

    assert "Precious" in answer.content.decode()
    assert Server.objects.exists()


@pytest.mark.parametrize("by_action", [True, False])
def test_an_unused_server_is_deleted(client, by_action) -> None:
    pk = make_server().pk
    if by_action:
        client.post(
            "/admin/forwards/server/", {"action": "delete_selected", "_selected_action": [str(pk)], "post": "yes"}
        )
    else:
        client.post(f"/admin/forwards/server/{pk}/delete/", {"post": "yes"})

    assert not Server.objects.exists()


# Forwards


@pytest.mark.parametrize("kind", ["local", "remote", "dynamic"])
def test_a_forward_of_any_kind_can_be_added_and_is_off(client, kind) -> None:
    client.post("/admin/forwards/forward/add/", forward_data(make_server(), kind=kind))
    forward = Forward.objects.get()

    assert (forward.kind, forward.enabled) == (kind, False)


def test_a_blank_bind_host_means_loopback(client) -> None:
    client.post("/admin/forwards/forward/add/", forward_data(make_server(), local_host=""))

    assert Forward.objects.get().local_host == "127.0.0.1"


@pytest.mark.parametrize(
    ("field", "value"),
    [("local_port", value) for value in ("70000", "65536", "-1", "２２", "1e3", "")]
    + [
        ("remote_port", "0"),
        ("remote_port", ""),
        ("remote_host", "a..b"),
        ("local_host", "a b"),
        ("remote_host", "x" * 300),
    ],
)
def test_a_bad_side_of_a_forward_is_refused(client, field, value) -> None:
    answer = client.post("/admin/forwards/forward/add/", forward_data(make_server(), **{field: value}))

    assert errors(answer) == {field}
    assert not Forward.objects.exists()


def test_two_forwards_that_want_the_same_address_are_warned_of(client) -> None:
    server = make_forward(name="First").server
    data = forward_data(server, name="Second")
    answer = client.post("/admin/forwards/forward/add/", data)
    assert errors(answer) == {"save_anyway"}

    answer = client.post("/admin/forwards/forward/add/", {**data, "save_anyway": "on"}, follow=True)
    assert any("“First” wants the same listening address" in text for text in texts(answer))
    assert Forward.objects.count() == 2


def test_an_edit_leaves_a_running_forward_on(client) -> None:
    forward = make_forward(enabled=True, generation=3)
    url = f"/admin/forwards/forward/{forward.pk}/change/"
    client.post(url, forward_data(forward.server, name="Renamed"))
    forward.refresh_from_db()

    assert (forward.name, forward.enabled, forward.generation) == ("Renamed", True, 3)


@pytest.mark.parametrize("by_action", [True, False])
def test_forwards_are_deleted(client, by_action) -> None:
    pk = make_forward(enabled=True).pk
    if by_action:
        data = {"action": "delete_selected", "_selected_action": [str(pk)], "post": "yes"}
        client.post("/admin/forwards/forward/", data)
    else:
        client.post(f"/admin/forwards/forward/{pk}/delete/", {"post": "yes"})

    assert not Forward.objects.exists()


# Start and Stop


def test_there_are_actions_called_exactly_start_and_stop(client) -> None:
    make_forward()
    page = client.get("/admin/forwards/forward/").content.decode()

    assert '<option value="start">Start</option>' in page
    assert '<option value="stop">Stop</option>' in page


def test_start_and_stop_act_on_the_selected_forwards(client) -> None:
    one, two, other = make_forward(), make_forward(), make_forward()
    answer = act(client, "start", one, two)
    assert texts(answer) == ["2 forwards are starting."]
    assert set(Forward.objects.filter(enabled=True)) == {one, two}

    answer = act(client, "stop", two)
    assert texts(answer) == ["1 forward is stopping."]
    assert set(Forward.objects.filter(enabled=True)) == {one}
    assert not other.enabled


@pytest.mark.django_db(transaction=True)
def test_the_worker_is_woken_once_the_admin_has_committed(client, channel_layer) -> None:
    act(client, "start", make_forward())

    assert channel_layer.channels["worker.default"].qsize() == 1


# Who may


def test_whoever_may_only_look_sees_rows_and_no_secrets_and_changes_nothing(client) -> None:
    forward = make_forward()
    client = viewer("view_forward", "view_server")
    for url in (
        f"/admin/forwards/forward/{forward.pk}/change/",
        f"/admin/forwards/server/{forward.server_id}/change/",
    ):
        assert client.get(url).status_code == 200
        assert "passphrase" not in client.get(url).content.decode()
        assert client.post(url, {"name": "Taken over"}).status_code == 403

    page = client.get("/admin/forwards/forward/").content.decode()
    assert 'value="start"' not in page
    act(client, "start", forward)
    forward.refresh_from_db()
    assert not forward.enabled


def test_staff_without_permissions_see_no_forward(client) -> None:
    forward = make_forward()

    assert viewer().get(f"/admin/forwards/forward/{forward.pk}/change/").status_code == 403


def test_what_users_typed_is_shown_escaped(client) -> None:
    forward = make_forward(name="<img src=x onerror=alert(1)>", server=make_server(name="<script>alert(1)</script>"))
    for path in ("", f"{forward.pk}/change/"):
        page = client.get(f"/admin/forwards/forward/{path}").content.decode()
        assert "<img src=x" not in page
        assert "<script>alert" not in page
