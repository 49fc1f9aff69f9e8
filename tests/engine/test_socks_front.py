"""A dynamic forward as its users meet it: curl, and clients that do it wrong."""

from __future__ import annotations

import asyncio
import contextlib
import errno

import asyncssh
import pytest

from forwards.engine import socks_front
from forwards.engine.socks import Reply
from forwards.engine.socks_front import reply_to_failure
from tests.engine.rig import ask, client, dynamic, echo, ending, eventually, greet, server_spec

CONNECT = b"\5\1\0\5\1\0\1\x7f\0\0\1"
GRANTED = b"\5\0\5\0\0\1" + bytes(6)


@pytest.fixture
async def port(rig, sshd) -> int:
    return await rig.open(server_spec(sshd), dynamic())


def to(port: int) -> bytes:
    return CONNECT + port.to_bytes(2)


async def test_early_data_arrives_and_the_answer_follows_the_reply(port, rig, destinations) -> None:
    service = await destinations.serve(echo)

    assert await ask(port, to(service.port) + b"early bird") == GRANTED + b"early bird"
    await eventually(lambda: rig.counters().active == 0)
    assert (rig.counters().bytes_in, rig.counters().bytes_out) == (10, 10)


async def test_the_reply_precedes_a_server_that_speaks_first(port, destinations) -> None:
    service = await destinations.serve(greet)
    for _ in range(20):
        assert await ask(port, to(service.port)) == GRANTED + b"220 hello\r\n"


async def test_a_handshake_may_come_byte_by_byte(port, destinations) -> None:
    service = await destinations.serve(echo)
    async with client(port) as (reader, writer):
        for byte in to(service.port) + b"x":
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(0)
        assert await reader.readexactly(len(GRANTED) + 1) == GRANTED + b"x"


@pytest.mark.parametrize("version", ["--socks5-hostname", "--socks5", "--socks4a", "--socks4"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_curl_gets_a_page_by_every_version(version, host, port, destinations) -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    web = await destinations.serve(page)
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--max-time", "15", version, f"127.0.0.1:{port}", f"http://{host}:{web.port}/", stdout=-1
    )
    shown, _ = await curl.communicate()

    assert (curl.returncode, shown) == (0, b"hello")


async def test_a_destination_that_refuses_is_told_in_the_reply_and_no_success_before(port, rig, sshd) -> None:
    assert await ask(port, to(1)) == b"\5\0\5\5\0\1" + bytes(6)
    assert await ask(port, b"\4\1\0\1\x7f\0\0\1\0") == b"\0\x5b" + bytes(6)
    await eventually(lambda: rig.counters().active == 0)
    assert rig.channels() == 0


@pytest.mark.parametrize("name", [b"no-such-host.invalid", b"a\0b", b"", b"x" * 255, b"\xff\xfe", b"a..b", b"_"])
async def test_no_name_whatever_closes_the_ssh_connection(name, port, rig, destinations) -> None:
    service = await destinations.serve(echo)
    async with client(port) as (reader, writer):
        writer.write(to(service.port))
        await reader.readexactly(len(GRANTED))
        answer = await ask(port, b"\5\1\0\5\1\0\3" + bytes((len(name),)) + name + b"\0\x50")
        assert answer[:3] == b"\5\0\5"
        assert answer[3] != 0
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"\5\0", b"\xff" * 5000, b""])
async def test_rubbish_is_hung_up_on(rubbish, port, destinations) -> None:
    service = await destinations.serve(echo)
    with contextlib.suppress(OSError):
        assert await ask(port, rubbish) in (b"", b"\5\xff")

    assert await ask(port, to(service.port) + b"x") == GRANTED + b"x"


async def test_three_hundred_idle_clients_are_hung_up_on_and_others_served_meanwhile(
    port, rig, destinations, monkeypatch
) -> None:
    monkeypatch.setattr(socks_front, "SOCKS_HANDSHAKE_TIMEOUT", 1.0)
    service = await destinations.serve(echo)
    async with contextlib.AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(client(port)) for _ in range(300)]
        for _, writer in idle:
            writer.write(b"\5")
        assert await ask(port, to(service.port) + b"x") == GRANTED + b"x"
        await asyncio.gather(*(ending(reader) for reader, _ in idle))
        listener = rig.supervisor._runners[1][0]._listener

        await eventually(lambda: not listener._pending)


async def test_stop_cuts_a_client_in_its_handshake(port, rig, sshd) -> None:
    async with client(port) as (reader, writer):
        writer.write(b"\5\1\0")
        await reader.readexactly(2)
        rig.want(server_spec(sshd))

        assert await ending(reader) == "reset"


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (asyncssh.ChannelOpenError(1, "nope"), Reply.FORBIDDEN),
        (asyncssh.ChannelOpenError(2, "Connection refused"), Reply.REFUSED),
        (asyncssh.ChannelOpenError(2, "Connection timed out"), Reply.TIMED_OUT),
        (asyncssh.ChannelOpenError(2, "Name or service not known"), Reply.UNREACHABLE),
        (TimeoutError(), Reply.TIMED_OUT),
        (OSError(errno.EPIPE, "x"), Reply.FAILED),
    ],
)
def test_each_failure_has_its_reply(error, reply) -> None:
    assert reply_to_failure(error) is reply
