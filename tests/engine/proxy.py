"""A network that delivers bytes in pieces of any size, late, and broken where it is told to; and clients to use it."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

# Of each of these ranges some slices are made: borders fall into headers, tags and everything else.
SIZES = ((1, 40), (1, 2_000), (1_000, 20_000), (30_000, 70_000))


class Proxy:
    """Passes connections on to a port of this machine, in slices of random sizes with turns of the loop in between."""

    def __init__(self, target: int, seed: int) -> None:
        self._target = target
        self._random = random.Random(seed)
        self._passed = {"up": 0, "down": 0}
        self._flip: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.flipped = asyncio.Event()

    async def open(self) -> int:
        """Listen; return the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def flip(self, direction: str, after: int, bit: int) -> None:
        """Flip one bit of the byte that comes `after` so many more; "up" is what the client sends."""
        self._flip[direction] = self._passed[direction] + after
        self._bit = bit

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            # The first end of either direction ends both, as for a connection that broke.
            ways = [self._pass(reader, far_writer, "up"), self._pass(far_reader, writer, "down")]
            passing = [asyncio.ensure_future(way) for way in ways]
            try:
                await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in passing:
                    way.cancel()
                await asyncio.gather(*passing, return_exceptions=True)
        finally:
            writer.transport.abort()
            far_writer.transport.abort()
            await asyncio.sleep(0)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        with suppress(ConnectionError):
            while data := bytearray(await reader.read(65536)):
                at = self._flip.get(direction, -1) - self._passed[direction]
                if 0 <= at < len(data):
                    data[at] ^= 1 << self._bit
                    self.flipped.set()
                self._passed[direction] += len(data)
                for piece in self._pieces(data):
                    writer.write(piece)
                    await writer.drain()
                    for _ in range(self._random.randrange(4)):
                        await asyncio.sleep(0)

    def _pieces(self, data: bytearray) -> list[bytes]:
        pieces = []
        position = 0
        while position < len(data):
            # Few of the smallest: each takes a turn of the loop.
            lowest, highest = self._random.choices(SIZES, (1, 2, 4, 4))[0]
            size = self._random.randint(lowest, highest)
            pieces.append(bytes(data[position : position + size]))
            position += size
        return pieces

    async def close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
