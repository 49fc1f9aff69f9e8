import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from forwards.engine import specs
from forwards.models import Forward, HostKey, Server, Worker
from tests.factories import beat, make_forward, make_server, set_status

pytestmark = pytest.mark.django_db

BAD_HOSTS = [
    "a..b", "a b", "a\nb", "a\0b", "\ud800", "x" * 300, "-oProxyCommand=x", "$(id)", "<img onerror>", "1.2.3",
    "256.1.1.1", "::1::", "[host]", "a/b", "user@host", ".", "-", "a_.b-", "fe80::1%", "ﬀ..x",
]  # fmt: skip
BAD_PORTS = [-1, 65536, 70000]


def errors_of(row: Server | Forward) -> set[str]:
    with pytest.raises(ValidationError) as caught:
        row.full_clean()
    return set(caught.value.error_dict)


def forward(**fields) -> Forward:
    fields.setdefault("server", make_server())
    return Forward(**{"name": "MySQL", "local_port": 3307, "remote_port": 3306, **fields})


def server(**fields) -> Server:
    return Server(**{"name": "My VPS", "host": "ssh.example", "user": "me", **fields})


# Servers


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


# Forwards


@pytest.mark.parametrize("kind", ["local", "remote", "dynamic"])
def test_the_usual_forwards_are_accepted(kind) -> None:
    forward(kind=kind).full_clean()


@pytest.mark.parametrize("kind", ["local", "remote"])
@pytest.mark.parametrize("field", ["local_host", "remote_host"])
@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_host_that_is_none_is_refused_on_either_side(kind, field, host) -> None:
    assert errors_of(forward(kind=kind, **{field: host})) == {field}


@pytest.mark.parametrize("kind", ["local", "remote"])
@pytest.mark.parametrize("field", ["local_port", "remote_port"])
@pytest.mark.parametrize("port", BAD_PORTS)
def test_a_port_out_of_range_is_refused_on_either_side(kind, field, port) -> None:
    assert errors_of(forward(kind=kind, **{field: port})) == {field}


def test_both_ports_must_be_given() -> None:
    assert errors_of(forward(local_port=None)) == {"local_port"}
    assert errors_of(forward(remote_port=None)) == {"remote_port"}
    assert errors_of(forward(kind="remote", remote_port=None)) == {"remote_port"}


def test_port_zero_is_for_the_end_that_listens() -> None:
    forward(local_port=0).full_clean()
    forward(kind="remote", remote_port=0).full_clean()
    forward(kind="dynamic", local_port=0).full_clean()
    assert errors_of(forward(remote_port=0)) == {"remote_port"}
    assert errors_of(forward(kind="remote", local_port=0)) == {"local_port"}


@pytest.mark.parametrize(
    ("kind", "field"), [("local", "local_host"), ("remote", "remote_host"), ("dynamic", "local_host")]
)
@pytest.mark.parametrize("blank", ["", "   "])
def test_a_blank_bind_host_means_loopback(kind, field, blank) -> None:
    row = forward(kind=kind, **{field: blank})
    row.full_clean()

    assert getattr(row, field) == "127.0.0.1"


@pytest.mark.parametrize(("kind", "field"), [("local", "remote_host"), ("remote", "local_host")])
def test_a_blank_destination_is_refused(kind, field) -> None:
    assert errors_of(forward(kind=kind, **{field: ""})) == {field}


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "::", "::ffff:0.0.0.0", "[::]", "192.168.1.2", "fe80::1%eth0"])
def test_a_forward_may_listen_on_other_addresses_than_loopback(host) -> None:
    forward(local_host=host).full_clean()


def test_every_interface_is_no_destination() -> None:
    assert errors_of(forward(remote_host="*")) == {"remote_host"}


def test_a_dynamic_forward_has_no_remote_side() -> None:
    row = forward(kind="dynamic", remote_host="a..b", remote_port=99)
    row.clean()

    assert (row.remote_host, row.remote_port) == ("", None)
    assert row.dest_address is None


def test_which_end_listens_follows_from_the_kind() -> None:
    sides = {"local_host": "127.0.0.1", "local_port": 1, "remote_host": "db", "remote_port": 2}

    assert forward(kind="local", **sides).listen_address == ("127.0.0.1", 1)
    assert forward(kind="local", **sides).dest_address == ("db", 2)
    assert forward(kind="remote", **sides).listen_address == ("db", 2)
    assert forward(kind="remote", **sides).dest_address == ("127.0.0.1", 1)
    assert forward(kind="dynamic", **sides).listen_address == ("127.0.0.1", 1)


def test_the_spec_of_a_forward_is_in_the_engines_terms() -> None:
    row = make_forward(kind="remote", local_host="bücher", local_port=3000, remote_host="*", remote_port=8080)
    row.generation = 4
    spec = row.spec()

    assert (spec.kind, spec.server_id, spec.generation) == (specs.Kind.REMOTE, row.server_id, 4)
    assert (spec.listen_host, spec.listen_port) == ("*", 8080)
    assert (spec.dest_host, spec.dest_port) == ("xn--bcher-kva", 3000)


@pytest.mark.parametrize(
    "fields", [{"local_host": "a..b"}, {"remote_port": 70000}, {"remote_host": "a\0b"}, {"local_port": -1}]
)
def test_a_row_nobody_validated_has_no_spec(fields) -> None:
    with pytest.raises(specs.SpecError):
        forward(**fields).spec()


def test_a_rename_makes_no_other_spec() -> None:
    row = make_forward()
    before = row.spec()
    row.name = "Renamed"

    assert row.spec() == before


# Overlapping


def names(row: Forward) -> set[str]:
    return set(Forward.objects.overlapping(row).values_list("name", flat=True))


def test_two_local_forwards_on_one_port_overlap_if_their_addresses_do() -> None:
    make_forward(name="loopback", local_port=3307)
    make_forward(name="other address", local_port=3307, local_host="127.0.0.2")
    make_forward(name="everywhere", local_port=3307, local_host="0.0.0.0")
    make_forward(name="other port", local_port=3308)
    make_forward(name="socks", local_port=3307, kind="dynamic", remote_port=None)

    assert names(forward(local_port=3307)) == {"loopback", "everywhere", "socks"}
    assert names(forward(local_port=3307, local_host="*")) == {"loopback", "other address", "everywhere", "socks"}
    assert names(forward(local_port=9)) == set()


def test_a_forward_does_not_overlap_itself() -> None:
    assert names(make_forward()) == set()


def test_port_zero_never_overlaps() -> None:
    make_forward(local_port=0)

    assert names(forward(local_port=0)) == set()


def test_remote_forwards_overlap_on_the_same_server_only() -> None:
    here, there = make_server(), make_server()
    make_forward(name="here", kind="remote", server=here, remote_port=8080)
    make_forward(name="there", kind="remote", server=there, remote_port=8080)
    make_forward(name="local", server=here, local_port=8080)

    assert names(forward(kind="remote", server=here, remote_port=8080)) == {"here"}
    assert names(forward(kind="remote", server=here, remote_port=8080, remote_host="*")) == {"here"}


# The worker


def test_a_worker_lives_as_long_as_its_heart_beats() -> None:
    assert not Worker.is_alive()
    beat(age=7)
    assert Worker.is_alive()
    beat(age=9)
    assert not Worker.is_alive()


def test_the_heart_of_another_worker_says_nothing(settings) -> None:
    beat(name="other")

    assert not Worker.is_alive()
    assert Worker.is_alive("other")


def test_rows_come_with_all_they_show_in_one_query(django_assert_num_queries) -> None:
    for number in range(3):
        set_status(make_forward(local_port=4000 + number), "listening")

    with django_assert_num_queries(1):
        for row in Forward.objects.for_rows():
            assert row.status.sentence == ""
            assert row.server.name
