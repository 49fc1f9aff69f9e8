import asyncio

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import ProtectedError

from forwards import messages, services
from forwards.models import ConnectionTest, Forward, HostKey, Server
from tests.factories import make_forward, make_server, present_key, set_status

pytestmark = pytest.mark.django_db(transaction=True)

EAR = "ear"


class Heard:
    """What the worker and the dashboards were sent since the last look."""

    def __init__(self, layer) -> None:
        self.layer = layer

    def __call__(self) -> tuple[bool, list[dict]]:
        """Say whether the worker was woken, and list what dashboards got."""
        woken = self._empty(messages.worker_channel(settings.WORKER_NAME))
        return bool(woken), self._empty(EAR)

    def _empty(self, channel: str) -> list[dict]:
        queue = self.layer.channels.pop(channel, None)
        return [queue.get_nowait()[1] for _ in range(queue.qsize())] if queue else []


@pytest.fixture
def heard(channel_layer) -> Heard:
    asyncio.run(channel_layer.group_add(messages.DASHBOARD_GROUP, EAR))
    return Heard(channel_layer)


def changed(*forwards: Forward) -> dict:
    return {"type": messages.FORWARDS_CHANGED, "ids": sorted(forward.pk for forward in forwards)}


def servers(*rows: Server) -> dict:
    return {"type": messages.SERVERS_CHANGED, "ids": sorted(row.pk for row in rows)}


LISTED = {"type": messages.FORWARDS_LISTED}


def test_start_wants_forwards_on_and_tells_everybody(heard) -> None:
    one, two, other = make_forward(), make_forward(), make_forward()
    services.start([two, one])

    assert set(Forward.objects.filter(enabled=True)) == {one, two}
    assert other.enabled is False
    assert heard() == (True, [changed(one, two)])


def test_starting_again_tries_anew() -> None:
    forward = make_forward()
    for _ in range(2):
        services.start([forward])
    forward.refresh_from_db()

    assert forward.generation == 2


def test_stop_wants_forwards_off_and_is_no_new_start(heard) -> None:
    forward = make_forward(enabled=True, generation=3)
    services.stop([forward])
    forward.refresh_from_db()

    assert (forward.enabled, forward.generation) == (False, 3)
    assert heard() == (True, [changed(forward)])


def test_nobody_hears_of_a_write_before_it_is_committed(heard) -> None:
    forward = make_forward()
    with transaction.atomic():
        services.start([forward])
        assert heard() == (False, [])
    assert heard() == (True, [changed(forward)])


def test_nobody_hears_of_a_write_that_was_rolled_back(heard) -> None:
    forward = make_forward()
    with pytest.raises(RuntimeError), transaction.atomic():
        services.start([forward])
        raise RuntimeError
    forward.refresh_from_db()

    assert not forward.enabled
    assert heard() == (False, [])


def test_a_write_makes_a_row_newer_than_it_was() -> None:
    """Dashboards find by this what no message told them."""
    forward = make_forward()
    before = forward.updated_at
    for write in (services.start, services.stop):
        write([forward])
        forward.refresh_from_db()
        assert forward.updated_at > before
        before = forward.updated_at


def test_a_saved_forward_is_drawn_and_listed(heard) -> None:
    forward = Forward(name="New", server=make_server(), local_port=1, remote_port=2)
    services.save_forward(forward)

    assert Forward.objects.get() == forward
    assert heard() == (True, [changed(forward), LISTED])


def test_a_forward_that_was_stopped_meanwhile_is_not_started_by_an_edit() -> None:
    """Somebody opened the dialog while it ran; somebody else pressed Stop; now the dialog is saved."""
    forward = make_forward(enabled=True, generation=1)
    edited = Forward.objects.get(pk=forward.pk)
    services.stop([forward])
    edited.name = "Renamed"
    services.save_forward(edited)
    forward.refresh_from_db()

    assert forward.name == "Renamed"
    assert not forward.enabled


def test_another_port_is_taken_and_the_forward_started(heard) -> None:
    forward = make_forward()
    set_status(forward, "failed")
    services.take_port(forward, 3309)
    forward.refresh_from_db()

    assert (forward.local_port, forward.enabled, forward.generation) == (3309, True, 1)
    assert heard() == (True, [changed(forward)])


def test_deleted_forwards_are_gone_with_their_status(heard) -> None:
    forward, other = make_forward(), make_forward()
    pk = forward.pk
    set_status(forward, "listening")
    services.delete_forwards(Forward.objects.filter(pk=pk))

    assert list(Forward.objects.all()) == [other]
    assert heard() == (True, [{"type": messages.FORWARDS_CHANGED, "ids": [pk]}, LISTED])


def test_services_take_querysets_that_their_own_write_empties(heard) -> None:
    forward = make_forward(enabled=True)
    services.stop(Forward.objects.filter(enabled=True))

    assert heard() == (True, [changed(forward)])


def test_a_saved_server_is_drawn_and_so_are_its_forwards(heard) -> None:
    server = make_server()
    forward = make_forward(server=server)
    make_forward()
    server.name = "Renamed"
    services.save_server(server)
    woken, told = heard()

    assert woken
    assert servers(server) in told
    assert changed(forward) in told


def test_trusted_keys_stay_while_a_server_stays_the_same_machine() -> None:
    server = make_server()
    HostKey.objects.create(server=server, algorithm="a", public_key="a b", fingerprint="f")
    server.name, server.user, server.keepalive_interval = "Renamed", "you", 30
    services.save_server(server)

    assert server.host_keys.count() == 1


@pytest.mark.parametrize(("field", "value"), [("host", "other.example"), ("port", 2222)])
def test_another_host_or_port_is_another_machine_whose_key_nobody_trusted(field, value) -> None:
    server = make_server()
    HostKey.objects.create(server=server, algorithm="a", public_key="a b", fingerprint="f")
    setattr(server, field, value)
    services.save_server(server)

    assert not server.host_keys.exists()


def test_a_server_without_forwards_can_be_deleted(heard) -> None:
    server = make_server()
    pk = server.pk
    services.delete_servers([server])

    assert not Server.objects.exists()
    assert heard() == (True, [{"type": messages.SERVERS_CHANGED, "ids": [pk]}])


def test_of_several_servers_all_or_none_are_deleted(heard) -> None:
    free, used = make_server(), make_forward().server
    with pytest.raises(ProtectedError):
        services.delete_servers([free, used])

    assert Server.objects.count() == 2
    assert heard() == (False, [])


def test_a_presented_key_is_trusted_by_its_fingerprint(heard) -> None:
    user, server = User.objects.create_user("me"), make_server()
    forward = make_forward(server=server)
    present_key(server, "SHA256:abc")
    key = services.trust_host_key(server, "SHA256:abc", user, replace=False)

    assert (key.algorithm, key.fingerprint, key.trusted_by) == ("ssh-ed25519", "SHA256:abc", user)
    woken, told = heard()
    assert woken
    assert servers(server) in told
    assert changed(forward) in told


@pytest.mark.parametrize("fingerprint", ["", "SHA256:xyz"])
def test_a_key_nobody_was_shown_is_not_trusted(fingerprint) -> None:
    server = make_server()
    present_key(server, "SHA256:abc")

    with pytest.raises(services.FingerprintMismatch):
        services.trust_host_key(server, fingerprint, None, replace=False)
    assert not HostKey.objects.exists()


def test_a_key_is_not_trusted_before_the_server_showed_any() -> None:
    with pytest.raises(services.FingerprintMismatch):
        services.trust_host_key(make_server(), "SHA256:abc", None, replace=False)


def test_a_key_of_the_machine_that_was_at_the_old_address_is_not_trusted() -> None:
    server = make_server()
    present_key(server, "SHA256:abc")
    server.host = "other.example"
    services.save_server(server)

    with pytest.raises(services.FingerprintMismatch):
        services.trust_host_key(server, "SHA256:abc", None, replace=False)


def test_a_changed_key_is_not_trusted_as_if_it_were_the_first() -> None:
    server = make_server()
    HostKey.objects.create(server=server, algorithm="a", public_key="a b", fingerprint="old")
    present_key(server, "SHA256:new")

    with pytest.raises(services.FingerprintMismatch):
        services.trust_host_key(server, "SHA256:new", None, replace=False)
    services.trust_host_key(server, "SHA256:new", None, replace=True)
    assert [key.fingerprint for key in server.host_keys.all()] == ["SHA256:new"]


def test_a_test_of_the_connection_is_asked_for_anew_each_time(heard) -> None:
    server = make_server()
    services.request_test(server)
    ConnectionTest.objects.update(reason="refused", milliseconds=5, finished_at="2025-01-01T00:00Z")
    heard()
    services.request_test(server)
    test = ConnectionTest.objects.get()

    assert (test.reason, test.milliseconds, test.finished_at) == ("", None, None)
    assert heard() == (True, [servers(server)])
