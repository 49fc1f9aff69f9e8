"""What both ends of a forwarded stream do, and the SSH server's part in it."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

import asyncssh


def stream(seed: int, size: int) -> bytes:
    """Return the bytes of one direction of one stream."""
    return random.Random(seed).randbytes(size)


@dataclass(frozen=True)
class Script:
    """What both ends of one stream do.

    The client sends `up` bytes and an end, the server `down` bytes and an end; `last` ("client" or "server") sends its
    end only when it has the other's. With `echo` the server sends back what it gets. With `closes` the client sends no
    end, and the server closes the channel as soon as it has got `up` bytes. A client that `leaves` resets its
    connection after so many bytes. `window` and `packet` are what the server takes; `slow` clients have small buffers.
    """

    up: int = 0
    down: int = 0
    last: str = ""
    echo: bool = False
    closes: bool = False
    leaves: int | None = None
    window: int = 2 * 1024 * 1024
    packet: int = 32768
    slow: bool = False


@dataclass
class Outcome:
    """What one end of a stream got, and how it ended: "eof", "reset", "left"; "closed" is a channel without EOF."""

    got: bytes = b""
    end: str = ""


class Stream(asyncssh.SSHTCPSession[bytes]):
    """The server's end of one stream."""

    def __init__(self, number: int, script: Script, outcome: Outcome) -> None:
        self.script = script
        self.outcome = outcome
        self.chan: Any = None
        self._got = bytearray()
        self._left = memoryview(b"" if script.echo else stream(2 * number, script.down))
        self._random = random.Random(number)
        self._peer_ended = False
        self._resumed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, chan: Any) -> None:
        self.chan = chan
        self._resumed.set()
        if not self.script.echo:
            self._task = asyncio.get_running_loop().create_task(self._send())

    def pause_writing(self) -> None:
        self._resumed.clear()

    def resume_writing(self) -> None:
        self._resumed.set()

    async def _send(self) -> None:
        while self._left and not self.chan.is_closing():
            await self._resumed.wait()
            size = self._random.choice((100, 5_000, 40_000, 200_000))
            part, self._left = self._left[:size], self._left[size:]
            self.chan.write(bytes(part))
            await asyncio.sleep(0)
        self._finish()

    def data_received(self, data: bytes, datatype: Any) -> None:
        self._got += data
        if len(data) > self.script.packet:
            self.outcome.end = "a packet that is too large"
        if self.script.echo:
            self.chan.write(data)
        self._finish()

    def eof_received(self) -> bool:
        self._peer_ended = True
        self.outcome.end = self.outcome.end or "eof"
        self._finish()
        return True

    def _finish(self) -> None:
        if self.script.echo:
            if self._peer_ended:
                self.chan.write_eof()
        elif self._left or self.chan.is_closing():
            return
        elif self.script.closes:
            if len(self._got) == self.script.up:
                self.chan.close()
        elif self._peer_ended:
            self.chan.write_eof()
            self.chan.close()
        elif self.script.last != "server":
            self.chan.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._resumed.set()
        if self._task:
            self._task.cancel()
        self.outcome.got = bytes(self._got)
        self.outcome.end = self.outcome.end or "closed"


def expected(number: int, script: Script) -> tuple[Outcome, Outcome]:
    """Return what the client and the server of a script should see, where nobody leaves."""
    up = stream(2 * number + 1, script.up)
    down = up if script.echo else stream(2 * number, script.down)
    return Outcome(down, "eof"), Outcome(up, "closed" if script.closes else "eof")
