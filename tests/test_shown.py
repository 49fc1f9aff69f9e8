import pytest
from django.utils import timezone

from forwards.models import Forward, ForwardStatus
from forwards.shown import route, shown
from tests.factories import make_forward, make_server, set_status

pytestmark = pytest.mark.django_db

# What is (None: nothing reported yet), and what is shown while wanted on, and wanted off.
STATES = [
    (None, "starting", "stopped"),
    ("stopped", "starting", "stopped"),
    ("starting", "starting", "stopping"),
    ("listening", "listening", "stopping"),
    ("retrying", "retrying", "stopping"),
    ("failed", "failed", "stopped"),
    ("stopping", "starting", "stopping"),
]
WORDS = {
    "stopped": ("Disconnected", "secondary"),
    "starting": ("Connecting", "azure"),
    "listening": ("Connected", "green"),
    "retrying": ("Reconnecting", "orange"),
    "failed": ("Error", "red"),
    "stopping": ("Disconnecting", "secondary"),
}


def row(state: str | None, *, enabled: bool, **status) -> Forward:
    forward = make_forward(enabled=enabled, generation=3)
    if state is not None:
        set_status(forward, state, **status)
    return Forward.objects.for_rows().get(pk=forward.pk)


@pytest.mark.parametrize(("state", "on", "off"), STATES)
def test_the_state_shown_follows_from_what_is_wanted_and_what_is(state, on, off) -> None:
    for enabled, expected in ((True, on), (False, off)):
        now = shown(row(state, enabled=enabled), worker_alive=True)
        assert now.state == expected
        assert (now.word, now.light) == WORDS[expected]
        assert now.moving == (expected in ("starting", "retrying", "stopping"))


@pytest.mark.parametrize("state", [state for state, _, _ in STATES])
def test_without_a_worker_a_wanted_forward_is_unknown_and_never_green(state) -> None:
    now = shown(row(state, enabled=True, connections=2), worker_alive=False)

    assert (now.state, now.word, now.connections) == ("unknown", "Unknown", 0)
    assert now.light not in ("green", "red")
    assert "worker is not running" in now.problem


@pytest.mark.parametrize("state", [state for state, _, _ in STATES])
def test_without_a_worker_an_unwanted_forward_is_disconnected(state) -> None:
    assert shown(row(state, enabled=False), worker_alive=False).state == "stopped"


@pytest.mark.parametrize("state", ["listening", "retrying", "failed"])
def test_a_status_of_an_earlier_start_shows_as_connecting(state) -> None:
    now = shown(
        row(state, enabled=True, generation=2, reason="keepalive_lost", params={"server": "A"}), worker_alive=True
    )

    assert (now.state, now.problem) == ("starting", "")


def test_an_error_comes_with_its_sentence_code_and_parameters() -> None:
    now = shown(row("failed", enabled=True, reason="port_in_use", params={"port": 3307}), worker_alive=True)

    assert now.problem == "Port 3307 is already in use on this machine."
    assert (now.problem_code, now.problem_params) == ("port_in_use", {"port": 3307})


def test_what_went_wrong_is_not_shown_of_a_forward_that_is_off() -> None:
    assert (
        shown(row("failed", enabled=False, reason="port_in_use", params={"port": 1}), worker_alive=True).problem == ""
    )


def test_connected_with_a_destination_that_refuses_is_yellow() -> None:
    params = {"dest": "127.0.0.1:3306", "server": "My VPS"}
    now = shown(row("listening", enabled=True, reason="dest_refused", params=params), worker_alive=True)

    assert (now.state, now.light) == ("listening", "yellow")
    assert now.problem.startswith("Connected, but 127.0.0.1:3306 on My VPS refuses connections.")


def test_counters_are_shown_live_and_bytes_stay_after_stop() -> None:
    counted = {"connections": 2, "bytes_in": 10, "bytes_out": 20}
    on = shown(row("listening", enabled=True, **counted), worker_alive=True)
    off = shown(row("stopped", enabled=False, **counted), worker_alive=True)

    assert (on.connections, on.bytes_in, on.bytes_out) == (2, 10, 20)
    assert (off.connections, off.bytes_in, off.bytes_out) == (0, 10, 20)


def test_the_next_attempt_and_since_when_are_shown() -> None:
    at = timezone.now()
    now = shown(row("retrying", enabled=True, attempt=4, retry_at=at, since=at), worker_alive=True)

    assert (now.attempt, now.retry_at, now.since) == (4, at, at)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("alive", [True, False])
@pytest.mark.parametrize("state", [state for state, _, _ in STATES])
def test_a_row_always_offers_start_or_stop_unless_it_is_stopping(state, alive, enabled) -> None:
    now = shown(row(state, enabled=enabled), worker_alive=alive)

    assert now.can_start == (now.state in ("stopped", "failed"))
    assert now.can_stop == (now.state not in ("stopped", "stopping"))


@pytest.mark.parametrize(
    ("public", "words"),
    [("yes", "listens publicly on port 8080"), ("unknown", "does not let Tunnelweb see"), ("", None), ("no", None)],
)
def test_a_row_says_whether_a_port_is_public(public, words) -> None:
    now = shown(row("listening", enabled=True, public=public, allocated_port=8080), worker_alive=True)

    assert words in now.note if words else now.note == ""


def test_the_route_says_where_a_forward_listens_what_carries_it_and_where_it_ends() -> None:
    server = make_server(name="My VPS")

    local = make_forward(server=server)
    assert route(local, here="laptop") == ("127.0.0.1:3307", "My VPS", "127.0.0.1:3306")
    remote = make_forward(server=server, kind="remote", local_port=3000, remote_host="0.0.0.0", remote_port=8080)
    assert route(remote, here="laptop") == ("0.0.0.0:8080", "laptop", "127.0.0.1:3000")
    dynamic = make_forward(server=server, kind="dynamic", local_host="::1", local_port=1080, remote_port=None)
    assert route(dynamic, here="laptop") == ("[::1]:1080", "My VPS", "what the client asks for")


def test_a_port_that_was_chosen_is_shown_in_the_route() -> None:
    forward = make_forward(local_port=0)
    assert route(forward, here="x")[0] == "127.0.0.1:any port"

    set_status(forward, "listening", allocated_port=40001)
    assert route(Forward.objects.for_rows().get(pk=forward.pk), here="x")[0] == "127.0.0.1:40001"


def test_showing_a_row_asks_the_database_nothing(django_assert_num_queries) -> None:
    with_status, without = row("listening", enabled=True), row(None, enabled=True)

    with django_assert_num_queries(0):
        for forward in (with_status, without):
            shown(forward, worker_alive=True)
            route(forward, here="x")
    assert ForwardStatus.objects.count() == 1
