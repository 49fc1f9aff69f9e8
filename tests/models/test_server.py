import pytest
from cryptography.fernet import Fernet
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from forwards.models import HostKey, Server
from tests.factories import make_forward, make_server
from tests.models.rows import BAD_HOSTS, BAD_PORTS, errors_of

pytestmark = pytest.mark.django_db


def server(**fields) -> Server:
    return Server(**{"name": "My VPS", "host": "ssh.example", "user": "me", **fields})


@pytest.mark.parametrize(
    "host", ["ssh.example", "10.0.0.1", "::1", "fe80::1%eth0", "bücher.example", "a_b", "x.", "xn--bcher-kva.de"]
)
def test_a_server_may_be_named_or_numbered(host) -> None:
    server(host=host).full_clean()


@pytest.mark.parametrize("host", ["", *BAD_HOSTS])
def test_a_server_without_a_sensible_host_is_refused(host) -> None:
    assert errors_of(server(host=host)) == {"host"}


@pytest.mark.parametrize("user", ["", "  ", "a\nb", "a\0b", "x" * 256, "\ud800", "\u202ea"])
def test_a_user_name_with_control_characters_or_of_great_length_is_refused(user) -> None:
    assert errors_of(server(user=user)) == {"user"}


@pytest.mark.parametrize("port", [0, *BAD_PORTS])
def test_a_server_cannot_have_port_zero_or_one_out_of_range(port) -> None:
    assert errors_of(server(port=port)) == {"port"}


def test_spaces_and_brackets_around_a_host_are_dropped() -> None:
    row = server(host=" [::1] ", user=" me ")
    row.full_clean()

    assert (row.host, row.user, row.address) == ("::1", "me", "[::1]:22")


@pytest.mark.parametrize(
    ("field", "value"),
    [("keepalive_interval", 0), ("keepalive_interval", 3601), ("keepalive_count_max", 0), ("connect_timeout", 301)],
)
def test_times_that_would_break_a_connection_are_refused(field, value) -> None:
    assert errors_of(server(**{field: value})) == {field}


def test_a_jump_chain_that_comes_back_to_itself_is_refused() -> None:
    a = make_server()
    b = make_server(proxy_jump=a)
    c = make_server(proxy_jump=b)
    a.proxy_jump = c

    assert errors_of(a) == {"proxy_jump"}
    Server.objects.get(pk=c.pk).full_clean()


def test_a_server_is_not_its_own_jump_host() -> None:
    a = make_server()
    a.proxy_jump = a

    assert errors_of(a) == {"proxy_jump"}


def test_a_loop_further_up_the_chain_is_found_and_not_followed_forever() -> None:
    a, b = make_server(), make_server()
    Server.objects.filter(pk=a.pk).update(proxy_jump=b)
    Server.objects.filter(pk=b.pk).update(proxy_jump=a)

    assert errors_of(server(proxy_jump=Server.objects.get(pk=a.pk))) == {"proxy_jump"}


def test_secrets_are_sealed_in_the_row_and_open_in_the_spec() -> None:
    row = make_server(auth="password")
    row.set_secret("password", "s3cret")
    row.save()
    stored = Server.objects.values().get(pk=row.pk)

    assert "s3cret" not in str(stored)
    assert row.has_secret("password")
    assert not row.has_secret("passphrase")
    assert row.spec().password == "s3cret"
    assert "s3cret" not in repr(row.spec())


def test_an_empty_secret_removes_the_stored_one() -> None:
    row = make_server()
    row.set_secret("password", "s3cret")
    row.set_secret("password", "")

    assert not row.has_secret("password")


def test_only_known_secrets_can_be_set() -> None:
    with pytest.raises(ValueError, match="host"):
        make_server().set_secret("host", "x")


def test_a_server_whose_secrets_cannot_be_opened_says_so_in_its_spec(settings) -> None:
    row = make_server()
    row.set_secret("password", "s3cret")
    settings.SEALING_KEYS = [Fernet.generate_key().decode()]

    assert row.spec().secrets_lost
    assert row.spec().password == ""


def test_the_spec_of_a_server_holds_what_the_engine_needs() -> None:
    jump = make_server()
    row = make_server(host="bücher.example", port=2222, proxy_jump=jump, keepalive_interval=5)
    for key in ("ssh-rsa BBBB", "ssh-ed25519 AAAA"):
        HostKey.objects.create(server=row, algorithm=key.split()[0], public_key=key, fingerprint=key)
    spec = row.spec()

    assert (spec.host, spec.port, spec.user) == ("xn--bcher-kva.example", 2222, "me")
    assert (spec.proxy_jump, spec.keepalive_interval) == (jump.pk, 5)
    assert spec.host_keys == ("ssh-ed25519 AAAA", "ssh-rsa BBBB")
    assert not spec.secrets_lost


def test_a_host_key_is_trusted_once_per_server() -> None:
    row = make_server()
    key = {"algorithm": "a", "public_key": "a b", "fingerprint": "f"}
    HostKey.objects.create(server=row, **key)
    HostKey.objects.create(server=make_server(), **key)

    with pytest.raises(IntegrityError), transaction.atomic():
        HostKey.objects.create(server=row, **key)


def test_a_server_that_carries_a_forward_or_is_a_jump_host_cannot_be_deleted() -> None:
    used = make_forward().server
    jump = make_server()
    make_server(proxy_jump=jump)

    for row in (used, jump):
        with pytest.raises(ProtectedError):
            row.delete()
