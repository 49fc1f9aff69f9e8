from __future__ import annotations

import socket

import pytest

from forwards.engine.greeting import speaks_otherwise
from tests.engine.rig import source


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n", b"\x15\x03\x01\x00\x02\x02\x46", b"220 mail\r\n"])
async def test_other_words_are_no_ssh_servers(words, destinations) -> None:
    assert await speaks_otherwise("127.0.0.1", (await destinations.serve(source(words))).port)


@pytest.mark.parametrize("words", [b"SSH-2.0-OpenSSH_9.2\r\n", b"Exceeded MaxStartups\r\n", b""])
async def test_ssh_servers_and_those_that_say_nothing_are_not_accused(words, destinations) -> None:
    assert not await speaks_otherwise("127.0.0.1", (await destinations.serve(source(words))).port)


async def test_who_is_not_there_is_not_accused() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))

        assert not await speaks_otherwise("127.0.0.1", unused.getsockname()[1])
