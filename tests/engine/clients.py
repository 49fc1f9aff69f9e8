"""Clients of a forward that play one end of a script."""

from __future__ import annotations

import asyncio
import random
import socket

from forwards.engine.sockets import reset
from tests.engine.fast_rig import Bench
from tests.engine.scripts import Outcome, Script, stream


async def play(bench: Bench, number: int) -> Outcome:
    """Be the client of a script."""
    sock = socket.socket()
    sock.setblocking(False)
    script = bench.scripts[number - 1]
    if script.slow:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(sock, ("127.0.0.1", bench.port(number)))
    except ConnectionError:
        sock.close()
        return Outcome(b"", "reset")
    sending: asyncio.Task[bool] | None = None
    ended = asyncio.Event()
    try:
        sending = loop.create_task(_send(sock, script, number, ended))
        outcome = await _receive(sock, script, ended)
        # The kernel tells of a reset once: to whom is reading, or to whom is writing.
        if outcome.end == "eof" and not await sending:
            outcome.end = "reset"
        return outcome
    finally:
        if sending:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        if script.leaves is None:
            sock.close()
        else:
            reset(sock)


async def _send(sock: socket.socket, script: Script, number: int, server_ended: asyncio.Event) -> bool:
    """Return whether all could be sent."""
    loop = asyncio.get_running_loop()
    chance = random.Random(number)
    left = memoryview(stream(2 * number + 1, script.up))
    try:
        while left:
            size = chance.choice((1, 500, 10_000, 70_000, 300_000))
            part, left = left[:size], left[size:]
            await loop.sock_sendall(sock, part)
            await asyncio.sleep(0)
        if not script.closes:
            if script.last == "client":
                await server_ended.wait()
            sock.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return True


async def _receive(sock: socket.socket, script: Script, ended: asyncio.Event) -> Outcome:
    loop = asyncio.get_running_loop()
    got = bytearray()
    while script.leaves is None or len(got) < script.leaves:
        try:
            data = await loop.sock_recv(sock, 3_000 if script.slow else 65536)
        except ConnectionError:
            return Outcome(bytes(got), "reset")
        if not data:
            ended.set()
            return Outcome(bytes(got), "eof")
        got += data
        if script.slow:
            for _ in range(3):
                await asyncio.sleep(0)
    return Outcome(bytes(got), "left")


async def play_all(bench: Bench) -> list[Outcome]:
    """Be the clients of all scripts at once."""
    async with asyncio.TaskGroup() as group:
        playing = [group.create_task(play(bench, number)) for number in range(1, len(bench.scripts) + 1)]
    return [task.result() for task in playing]
