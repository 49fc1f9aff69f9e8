import pytest

from forwards import services, store
from forwards.engine.specs import Auth, ServerSpec
from forwards.engine.states import Counters, Problem, Public, ServerStatus, State, Status
from forwards.engine.supervisor import TestOutcome as Outcome
from forwards.models import ConnectionTest, Forward, ForwardStatus, Server, Worker
from forwards.models import ServerStatus as ServerStatusRow
from tests.factories import make_forward, make_server, present_key, set_status

pytestmark = pytest.mark.django_db

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKHEChLbVEhOlV1bfZEoXbTjDyMYwHRHJ8AfXhJzNFfX"


def test_only_what_is_on_is_wanted() -> None:
    make_forward(name="off")
    running = make_forward(name="on", local_port=4000, enabled=True)

    wanted = store.load()

    assert [forward.id for forward in wanted.forwards] == [running.pk]
    assert {server.id for server in wanted.servers} == set(Server.objects.values_list("pk", flat=True))
    assert len(wanted.forward_rows) == 2


def test_a_row_written_past_every_form_is_refused_in_words_and_stops_no_other() -> None:
    good = make_forward(enabled=True)
    bad = Forward.objects.create(name="bad", server=good.server, local_port=70000, remote_port=1, enabled=True)
    Forward.objects.create(name="off", server=good.server, local_port=70000, remote_port=1)
    unnamed = make_forward(server=make_server(host="ß" * 300), name="bad host", enabled=True)

    wanted = store.load()

    assert [forward.id for forward in wanted.forwards] == [good.pk]
    assert {pk: status.problem.code for pk, status in wanted.refused.items() if status.problem} == {
        bad.pk: "port_invalid",
        unnamed.pk: "host_invalid",
    }
    store.write_statuses(wanted.refused)
    assert "Enter a port between" in ForwardStatus.objects.get(forward=bad).sentence


def test_what_changed_since_the_last_look_is_told_apart() -> None:
    kept, gone = make_forward(name="kept"), make_forward(name="gone", local_port=4000)
    before = store.load()
    assert before.differences(store.load()) == (set(), False, set())

    Forward.objects.filter(pk=kept.pk).update(name="renamed")
    assert before.differences(store.load()) == ({kept.pk}, False, set())

    gone.delete()
    changed, listed, servers = before.differences(store.load())
    assert (changed, listed, servers) == ({kept.pk}, True, set())

    services.save_server(kept.server)
    assert before.differences(store.load())[2] == {kept.server.pk}


def test_a_test_is_taken_up_once_with_its_whole_chain() -> None:
    first = make_server(name="first")
    last = make_server(name="last", proxy_jump=make_server(name="middle", proxy_jump=first))
    services.request_test(last)

    assert [[server.name for server in chain] for chain in store.load().tests] == [["first", "middle", "last"]]
    assert store.load().tests == []


def test_a_chain_that_loops_past_the_form_ends() -> None:
    one = make_server()
    two = make_server(proxy_jump=one)
    Server.objects.filter(pk=one.pk).update(proxy_jump=two)
    services.request_test(one)

    assert len(store.load().tests[0]) == 2


def test_a_new_worker_knows_that_nothing_is_open_yet() -> None:
    forward = make_forward(enabled=True)
    set_status(forward, "listening", connections=3, bytes_in=5, reason="dest_refused", public="no")
    present_key(forward.server)
    services.request_test(forward.server)
    store.load()

    store.begin("default", "here", 42)

    status = ForwardStatus.objects.get()
    assert (status.state, status.connections, status.reason, status.public) == ("stopped", 0, "", "")
    assert status.bytes_in == 5
    server = ServerStatusRow.objects.get()
    assert (server.state, server.presented_fingerprint) == ("stopped", "SHA256:abc")
    assert Worker.is_alive() and Worker.objects.get().pid == 42
    assert len(store.load().tests) == 1, "a test its predecessor did not finish is taken up again"


def test_a_worker_that_ended_is_known_to_be_gone_at_once() -> None:
    store.begin("default", "here", 1)
    store.beat("default")
    assert Worker.is_alive()

    store.end("default")
    assert not Worker.is_alive()


def test_a_status_is_stored_with_its_problem_and_its_counters() -> None:
    forward = make_forward(enabled=True)
    status = Status(
        forward.pk,
        generation=4,
        state=State.RETRYING,
        problem=Problem("keepalive_lost", {"server": "My VPS"}),
        attempt=3,
        retry_at=2_000_000_000.5,
        allocated_port=3307,
        public=Public.UNKNOWN,
        since=1_900_000_000,
        counters=Counters(1, 2, 3, 4),
    )

    store.write_statuses({forward.pk: status})

    row = ForwardStatus.objects.get()
    assert (row.state, row.generation, row.attempt, row.allocated_port) == ("retrying", 4, 3, 3307)
    assert row.sentence == "My VPS stopped answering."
    assert row.retry_at is not None and row.retry_at.timestamp() == 2_000_000_000.5
    assert (row.connections, row.connections_total, row.bytes_in, row.bytes_out) == (1, 2, 3, 4)


def test_what_is_reported_of_a_deleted_row_is_dropped() -> None:
    store.write_statuses({99: Status(99, 0, State.LISTENING)})
    store.write_server_statuses({99: ServerStatus(99, State.LISTENING)})
    store.write_counters({99: Counters(1, 1, 1, 1)})

    assert not ForwardStatus.objects.exists() and not ServerStatusRow.objects.exists()


def test_a_presented_key_waits_until_the_server_connects() -> None:
    server = make_server(host="127.0.0.1", port=2222)
    unknown = Problem("hostkey_unknown", {"server": server.name})

    store.write_server_statuses({server.pk: ServerStatus(server.pk, State.FAILED, unknown, KEY)})
    row = ServerStatusRow.objects.get()
    assert (row.presented_key, row.presented_by) == (KEY, "127.0.0.1:2222")
    assert row.presented_fingerprint.startswith("SHA256:")

    store.write_server_statuses({server.pk: ServerStatus(server.pk, State.STARTING)})
    assert ServerStatusRow.objects.get().presented_key == KEY

    store.write_server_statuses({server.pk: ServerStatus(server.pk, State.LISTENING)})
    assert ServerStatusRow.objects.get().presented_key == ""


def test_the_outcome_of_a_test_names_the_server_whose_key_it_met() -> None:
    jump = make_server(name="jump", host="127.0.0.1", port=22)
    server = make_server(name="behind", proxy_jump=jump)
    services.request_test(server)
    problem = Problem("jump_failed", {"jump": "jump", "server": "jump", "detail_code": "hostkey_unknown"})

    store.finish_test(server.pk, Outcome(problem, 0.0841, KEY, jump.pk))

    test = ConnectionTest.objects.get()
    assert (test.milliseconds, test.reason) == (84, "jump_failed")
    assert test.sentence.startswith("Jump host jump: Host key of jump not yet trusted.")
    assert ServerStatusRow.objects.get().server == jump


def test_counters_are_stored_without_touching_the_state() -> None:
    forward = make_forward()
    set_status(forward, "listening")

    store.write_counters({forward.pk: Counters(1, 2, 3, 4)})

    row = ForwardStatus.objects.get()
    assert (row.state, row.connections, row.bytes_out) == ("listening", 1, 4)


@pytest.mark.django_db(transaction=True)
def test_a_commit_of_somebody_else_makes_another_version_and_ones_own_does_not() -> None:
    import threading

    from django.db import connection

    make_server(name="before")
    version = store.data_version()
    make_server(name="mine")
    assert store.data_version() == version

    def write() -> None:
        make_server(name="another connection's")
        connection.close()

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert store.data_version() != version
    store.close()
    assert Server.objects.count() == 3


def test_a_spec_says_nothing_of_secrets_in_its_repr() -> None:
    server = make_server(auth="password")
    server.set_secret("password", "correct horse")
    server.save()

    (spec,) = store.load().servers
    assert isinstance(spec, ServerSpec) and spec.auth is Auth.PASSWORD and spec.password == "correct horse"
    assert "correct horse" not in repr(store.load())
