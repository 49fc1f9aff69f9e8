import pytest

from forwards.engine import specs
from forwards.models import Forward
from tests.factories import make_forward, make_server, set_status
from tests.models.rows import BAD_HOSTS, BAD_PORTS, errors_of

pytestmark = pytest.mark.django_db


def forward(**fields) -> Forward:
    fields.setdefault("server", make_server())
    return Forward(**{"name": "MySQL", "local_port": 3307, "remote_port": 3306, **fields})


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


def test_localhost_overlaps_both_of_its_addresses() -> None:
    make_forward(name="name", local_host="localhost")
    make_forward(name="four", local_host="127.0.0.1")
    make_forward(name="six", local_host="::1")

    assert names(forward(local_host="localhost")) == {"name", "four", "six"}
    assert names(forward(local_host="127.0.0.1")) == {"name", "four"}
    assert names(forward(local_host="::1")) == {"name", "six"}


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


def test_rows_come_with_all_they_show_in_one_query(django_assert_num_queries) -> None:
    for number in range(3):
        set_status(make_forward(local_port=4000 + number), "listening")

    with django_assert_num_queries(1):
        for row in Forward.objects.for_rows():
            assert row.status.sentence == ""
            assert row.server.name
