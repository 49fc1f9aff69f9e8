from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwards.engine.socks import Handshake, Refused, Reply, Request

GREETING = b"\5\1\0"
SOCKS4_REFUSAL = b"\0\x5b" + bytes(6)


def socks5(kind: int, address: bytes, port: int = 80, command: int = 1) -> bytes:
    return bytes((5, command, 0, kind)) + address + port.to_bytes(2)


def named(name: bytes) -> bytes:
    return bytes((len(name),)) + name


def outcome(data: bytes, cuts: list[int] | None = None) -> tuple[bytes, Request | None, bool]:
    """Feed `data` in the slices between `cuts`; return all that is answered, the request, and whether it is refused."""
    handshake = Handshake()
    answers = b""
    edges = [0, *sorted(cut for cut in cuts or [] if 0 < cut < len(data)), len(data)]
    for begin, end in zip(edges, edges[1:], strict=False):
        try:
            answer, request = handshake.feed(data[begin:end])
        except Refused as refused:
            return answers + refused.reply, None, True
        answers += answer
        if request:
            # What arrives later goes to the relay, as early data would.
            return answers, Request(request.host, request.port, request.early + data[end:]), False
    return answers, None, False


@pytest.mark.parametrize(
    ("request_bytes", "host"),
    [
        (socks5(1, bytes((127, 0, 0, 1))), "127.0.0.1"),
        (socks5(4, bytes(15) + b"\1"), "::1"),
        (socks5(3, named(b"example.com")), "example.com"),
        (socks5(3, named(b"127.0.0.1")), "127.0.0.1"),
    ],
)
def test_socks_5_takes_addresses_and_names(request_bytes, host) -> None:
    assert outcome(GREETING + request_bytes + b"early") == (b"\5\0", Request(host, 80, b"early"), False)


def test_socks_4_and_4a_are_understood() -> None:
    assert outcome(b"\4\1\0\x50\x7f\0\0\1me\0early") == (b"", Request("127.0.0.1", 80, b"early"), False)
    assert outcome(b"\4\1\0\x50\0\0\0\1me\0example.com\0early") == (b"", Request("example.com", 80, b"early"), False)


@pytest.mark.parametrize("greeting", [b"\5\0", b"\5\1\2", b"\5\2\1\2"])
def test_who_offers_no_way_without_password_is_told_so(greeting) -> None:
    assert outcome(greeting) == (b"\5\xff", None, True)


@pytest.mark.parametrize(
    "name", [b"", b"a\0b", b"\xff\xfe", b"x" * 255, b"a..b", b" ", b"a b", b"-oProxyCommand=x", b"a\n", b"*", b"1.2.3"]
)
def test_names_that_would_hurt_the_connection_are_refused(name) -> None:
    answers, request, refused = outcome(GREETING + socks5(3, named(name)))

    assert (answers[:4], request, refused) == (b"\5\0\5\x08", None, True)


def test_a_long_name_that_can_be_is_taken() -> None:
    name = b".".join([b"a" * 63] * 3 + [b"b" * 61])

    assert outcome(GREETING + socks5(3, named(name)))[1] == Request(name.decode(), 80, b"")


@pytest.mark.parametrize("command", [2, 3, 0, 255])
def test_bind_and_udp_are_refused_as_unsupported(command) -> None:
    assert outcome(GREETING + socks5(1, bytes(4), command=command)) == (b"\5\0\5\7\0\1" + bytes(6), None, True)
    assert outcome(bytes((4, command)) + b"\0\x50\x7f\0\0\1\0") == (SOCKS4_REFUSAL, None, True)


def test_an_unknown_kind_of_address_is_refused() -> None:
    assert outcome(GREETING + socks5(9, bytes(4)))[0] == b"\5\0\5\x08\0\1" + bytes(6)


def test_port_0_is_refused() -> None:
    assert outcome(GREETING + socks5(1, bytes(4), port=0))[2]
    assert outcome(b"\4\1\0\0\x7f\0\0\1\0") == (SOCKS4_REFUSAL, None, True)


def test_a_user_or_a_name_without_end_is_cut() -> None:
    assert outcome(b"\4\1\0\x50\x7f\0\0\1" + b"u" * 400) == (SOCKS4_REFUSAL, None, True)
    assert outcome(b"\4\1\0\x50\0\0\0\1\0" + b"n" * 400) == (SOCKS4_REFUSAL, None, True)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01", b"SSH-2.0-x\r\n", b"\0"])
def test_another_protocol_is_refused_without_a_word(data) -> None:
    assert outcome(data) == (b"", None, True)


def test_a_request_of_another_version_than_its_greeting_is_refused() -> None:
    assert outcome(GREETING + b"\4\1\0\x50")[2]


def test_nothing_is_no_answer() -> None:
    assert outcome(b"") == (b"", None, False)


def test_every_reply_has_the_form_of_its_version() -> None:
    five, four = Handshake(), Handshake()
    five.feed(GREETING)
    four.feed(b"\4")
    for reply in Reply:
        assert five.reply(reply) == bytes((5, reply.value[0], 0, 1)) + bytes(6)
        assert four.reply(reply) == bytes((0, reply.value[1])) + bytes(6)


likely = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([GREETING, b"\5\0", b"\4\1\0\x50\0\0\0\1", b"\0", b"\5\1\0\3", named(b"a.b"), b"\0\x50"]),
    )
).map(b"".join)


@given(likely, st.lists(st.integers(0, 200)))
def test_no_bytes_raise_anything_else_and_no_slicing_changes_the_outcome(data, cuts) -> None:
    assert outcome(data, cuts) == outcome(data) == outcome(data, list(range(len(data))))
