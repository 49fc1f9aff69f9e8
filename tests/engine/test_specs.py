import pytest

from forwards.engine.specs import (
    Auth,
    ForwardSpec,
    Kind,
    ServerSpec,
    SpecError,
    is_every_interface,
    is_loopback,
    join_host_port,
    parse_bind_host,
    parse_host,
    parse_port,
    parse_user,
    wire_host,
)


def forward(**changes) -> ForwardSpec:
    values = {"id": 1, "name": "A", "kind": Kind.LOCAL, "server_id": 1, "listen_host": "127.0.0.1", "listen_port": 1}
    return ForwardSpec(**{**values, "dest_host": "a", "dest_port": 1, **changes})


@pytest.mark.parametrize("text", ["1", "22", "65535", " 22 ", 22])
def test_a_port_is_digits_between_1_and_65535(text) -> None:
    assert parse_port(text, listening=False) == int(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "-1", "65536", "70000", "２２", "1e3", "0x16", "22\n", "+22", "1_000", "2 2", "٣", "\t22", "000022"],
)
def test_what_is_no_port_is_refused(text) -> None:
    with pytest.raises(SpecError) as refused:
        parse_port(text, listening=False)
    assert (refused.value.code, refused.value.params) == ("port_invalid", {"lowest": 1, "highest": 65535})


def test_port_0_is_for_listening_only() -> None:
    assert parse_port("0", listening=True) == 0
    with pytest.raises(SpecError):
        parse_port("0", listening=False)


@pytest.mark.parametrize(
    "text",
    [
        "example.com",
        "example.com.",
        "localhost",
        "db_1",
        "127.0.0.1",
        "::1",
        "fe80::1%eth0",
        "münchen.de",
        "xn--mnchen-3ya.de",
    ]
    + ["a" * 63, "1a", "::ffff:10.0.0.1"],
)
def test_a_host_is_kept_as_typed(text) -> None:
    assert parse_host(f" {text} ") == text


def test_brackets_around_an_ipv6_address_are_taken_off() -> None:
    assert parse_host("[::1]") == "::1"


@pytest.mark.parametrize(
    "text",
    ["a..b", ".a", "a b", "a\nb", "a\0b", "\ud800", "a" * 64, "a." * 127 + "aa", "x" * 300, "-oProxyCommand=x", "$(id)"]
    + ["[a]", "[127.0.0.1]", "1.2.3", "256.1.1.1", "1", "127.1", "a/b", "::1%", "::1%a b", "10.0.0.1%eth0", "*", "a\n"]
    + ["http://a", "a:22", "user@a", "‮a", "．"],
)
def test_what_is_no_host_is_refused(text) -> None:
    with pytest.raises(SpecError) as refused:
        parse_host(text)
    assert refused.value.code == "host_invalid"


def test_an_empty_host_is_missing_rather_than_wrong() -> None:
    with pytest.raises(SpecError, match="host_missing"):
        parse_host("  ")


def test_a_name_outside_ascii_goes_over_the_wire_in_ascii() -> None:
    assert wire_host("münchen.de") == "xn--mnchen-3ya.de"
    assert wire_host("a.de") == "a.de"


def test_a_blank_bind_host_is_loopback_and_a_star_every_interface() -> None:
    assert [parse_bind_host(text) for text in ("", " ", "*", "::", "localhost")] == [
        "127.0.0.1",
        "127.0.0.1",
        "*",
        "::",
        "localhost",
    ]


@pytest.mark.parametrize("user", ["me", "DOMAIN\\me", "a b", "jürgen", "x" * 255])
def test_a_user_name_is_kept(user) -> None:
    assert parse_user(user) == user


@pytest.mark.parametrize("user", ["a\0", "a\nb", "\ud800", "x" * 256, "a\x1b[31m"])
def test_what_is_no_user_name_is_refused(user) -> None:
    with pytest.raises(SpecError, match="user_invalid"):
        parse_user(user)


def test_an_empty_user_is_missing() -> None:
    with pytest.raises(SpecError, match="user_missing"):
        parse_user(" ")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost", "::ffff:127.0.0.1"])
def test_loopback_is_reached_from_its_own_machine_only(host) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "*", "10.0.0.1", "a.example", "::ffff:0.0.0.0"])
def test_everything_else_is_not_loopback(host) -> None:
    assert not is_loopback(host)


def test_every_interface_has_several_names() -> None:
    assert all(map(is_every_interface, ["*", "0.0.0.0", "::", "::ffff:0.0.0.0"]))
    assert not any(map(is_every_interface, ["127.0.0.1", "::1", "localhost", "10.0.0.1"]))


def test_an_ipv6_address_gets_brackets_before_its_port() -> None:
    assert join_host_port("::1", 22) == "[::1]:22"
    assert join_host_port("a", 22) == "a:22"


@pytest.mark.parametrize(
    "changes",
    [{"listen_port": -1}, {"listen_port": 70000}, {"dest_port": 0}, {"dest_port": 2**33}, {"dest_host": "a\0b"}]
    + [
        {"dest_host": ""},
        {"dest_host": "a..b"},
        {"dest_host": "\ud800"},
        {"listen_host": "a..b"},
        {"listen_host": "a\0"},
    ],
)
def test_no_forward_spec_holds_what_would_hurt_the_connection(changes) -> None:
    with pytest.raises(SpecError):
        forward(**changes)


@pytest.mark.parametrize("kind", Kind)
def test_a_forward_spec_without_a_bind_host_listens_on_loopback(kind) -> None:
    """An SSH server takes the empty string for every interface."""
    assert forward(kind=kind, listen_host="").listen_host == "127.0.0.1"


def test_a_dynamic_forward_needs_no_destination() -> None:
    assert not forward(kind=Kind.DYNAMIC, dest_host="", dest_port=0).listens_on_server


def test_a_name_makes_no_difference_between_specs_and_everything_else_does() -> None:
    assert forward(name="A") == forward(name="B")
    assert forward(listen_port=1) != forward(listen_port=2)
    assert forward(generation=1) != forward(generation=2)


def test_no_secret_is_in_the_repr_of_a_server() -> None:
    server = ServerSpec(1, "A", "a", 22, "me", Auth.PASSWORD, key_text="K3Y", passphrase="PHR4SE", password="PASSW0RD")
    assert not any(secret in repr(server) for secret in ("K3Y", "PHR4SE", "PASSW0RD"))
    assert server.address == "a:22"
