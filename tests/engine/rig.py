"""What the engine's tests run forwards with, and talk through them with."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from forwards.engine.specs import Auth, ForwardSpec, Kind, ServerSpec
from forwards.engine.states import Counters, Problem, ServerStatus, State, Status
from forwards.engine.supervisor import Supervisor
from tests.sshd import Sshd

# Long enough for a busy machine; nothing waits that long unless it fails.
PATIENCE = 20.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def eventually(what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Return what `what` returns once it is true: for things that tell nobody when they change."""
    async with asyncio.timeout(seconds):
        while not (found := what()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return found


@asynccontextmanager
async def client(port: int, host: str = "127.0.0.1") -> AsyncIterator[Streams]:
    """A connection that ends with a reset, if the test did not end it otherwise."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(PATIENCE):
            yield reader, writer
    finally:
        reset(writer)
        await asyncio.sleep(0)


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection so that the other side gets an error, not an end."""
    if not writer.is_closing():
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # One that is closing already goes by itself, unless the other side does not read.
    if not writer.is_closing() or writer.transport.get_write_buffer_size():
        writer.transport.abort()


async def ask(port: int, question: bytes, host: str = "127.0.0.1") -> bytes:
    """Send, shut down writing, and return all that comes back until the end."""
    async with client(port, host) as (reader, writer):
        writer.write(question)
        writer.write_eof()
        return await reader.read()


async def ending(reader: asyncio.StreamReader) -> str:
    """Read to the end; say whether it was in order ("eof") or not ("reset")."""
    try:
        async with asyncio.timeout(PATIENCE):
            while await reader.read(65536):
                pass
    except ConnectionError:
        return "reset"
    return "eof"


# What the servers do with a connection


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the SHA-256 of all that came, after its end."""
    seen = hashlib.sha256()
    while data := await reader.read(65536):
        seen.update(data)
    writer.write(seen.hexdigest().encode())


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak first, as databases and mail servers do."""
    writer.write(b"220 hello\r\n")
    await echo(reader, writer)


async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read nothing, say nothing, stay."""
    await asyncio.Event().wait()


def source(data: bytes) -> Handler:
    """Send `data` at once and end."""

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return send


class Destination:
    """A TCP server of a test. Each connection ends when its handler does."""

    def __init__(self, handler: Handler) -> None:
        self.accepted: list[Streams] = []
        self.resets = 0
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> None:
        self._server = await asyncio.start_server(self._accept, host, port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted.append((reader, writer))
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._handler(reader, writer)
        except ConnectionError:
            self.resets += 1
        finally:
            writer.close()

    @property
    def serving(self) -> int:
        return len(self._tasks)

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, writer in self.accepted:
            reset(writer)
        await asyncio.sleep(0)


class Destinations:
    """The TCP servers of one test."""

    def __init__(self) -> None:
        self._open: list[Destination] = []

    async def serve(self, handler: Handler, host: str = "127.0.0.1", port: int = 0) -> Destination:
        destination = Destination(handler)
        await destination.open(host, port)
        self._open.append(destination)
        return destination

    async def close(self) -> None:
        for destination in self._open:
            await destination.close()


def server_spec(sshd: Sshd, number: int = 1, **changes: Any) -> ServerSpec:
    """Return how to sign in at `sshd` by key, its host key trusted."""
    spec = ServerSpec(
        id=number,
        name=f"Server {number}",
        host="127.0.0.1",
        port=sshd.port,
        user=sshd.user,
        auth=Auth.KEY_FILE,
        key_path=str(sshd.key),
        host_keys=(sshd.public_host_key,),
    )
    return replace(spec, **changes)


def local(dest_port: int, number: int = 1, **changes: Any) -> ForwardSpec:
    return _forward(Kind.LOCAL, number, dest_port, changes)


def remote(dest_port: int, number: int = 1, **changes: Any) -> ForwardSpec:
    return _forward(Kind.REMOTE, number, dest_port, changes)


def dynamic(number: int = 1, **changes: Any) -> ForwardSpec:
    return _forward(Kind.DYNAMIC, number, 0, changes)


def _forward(kind: Kind, number: int, dest_port: int, changes: dict[str, Any]) -> ForwardSpec:
    values: dict[str, Any] = {"id": number, "name": f"Forward {number}", "kind": kind, "server_id": 1}
    values |= {"listen_host": "127.0.0.1", "listen_port": 0, "probe": False}
    if kind is not Kind.DYNAMIC:
        values |= {"dest_host": "127.0.0.1", "dest_port": dest_port}
    return ForwardSpec(**{**values, **changes})


class Rig:
    """A supervisor, and everything it reported in order."""

    def __init__(self) -> None:
        self.supervisor = Supervisor(self._forward_reported, self._server_reported)
        self.history: list[Status] = []
        self.server_history: list[ServerStatus] = []
        self._waiting: list[asyncio.Future[None]] = []

    def _forward_reported(self, status: Status) -> None:
        self.history.append(status)
        self._wake()

    def _server_reported(self, status: ServerStatus) -> None:
        self.server_history.append(status)
        self._wake()

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    def want(self, servers: ServerSpec | Sequence[ServerSpec], *forwards: ForwardSpec) -> None:
        self.supervisor.reconcile([servers] if isinstance(servers, ServerSpec) else servers, forwards)

    async def until(self, what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Return what `what` returns once it is true, looking at each report."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := what()):
                    waiting = asyncio.get_running_loop().create_future()
                    self._waiting.append(waiting)
                    await waiting
        except TimeoutError:
            raise AssertionError(f"not reported: {self.history[-3:]} {self.server_history[-3:]}") from None
        return found

    def status(self, number: int = 1) -> Status | None:
        return next((status for status in reversed(self.history) if status.forward_id == number), None)

    def server_status(self, number: int = 1) -> ServerStatus | None:
        return next((status for status in reversed(self.server_history) if status.server_id == number), None)

    def states(self, number: int = 1) -> list[State]:
        return [status.state for status in self.history if status.forward_id == number]

    async def reaches(self, state: State, number: int = 1, seconds: float = PATIENCE) -> Status:
        """Return the forward's status once its state is `state`."""

        def reached() -> Status | None:
            status = self.status(number)
            return status if status and status.state is state else None

        return await self.until(reached, seconds)

    async def problem(self, code: str, number: int = 1, seconds: float = PATIENCE) -> Status:
        """Return the forward's status once its problem, or warning, is `code`."""

        def reached() -> Status | None:
            status = self.status(number)
            return status if status and status.problem and status.problem.code == code else None

        return await self.until(reached, seconds)

    async def port(self, number: int = 1) -> int:
        """Return the port the forward listens on once it does."""
        status = await self.reaches(State.LISTENING, number)
        assert status.allocated_port
        return status.allocated_port

    async def open(self, server: ServerSpec | Sequence[ServerSpec], *forwards: ForwardSpec) -> int:
        """Run `forwards` and return the port of the first when all of them listen."""
        self.want(server, *forwards)
        for forward in forwards:
            await self.port(forward.id)
        return await self.port(forwards[0].id)

    def counters(self, number: int = 1) -> Counters:
        return self.supervisor.counters()[number]

    def channels(self, number: int = 1) -> int:
        """Return how many SSH channels the connection to a server has."""
        connection, _ = self.supervisor._servers[number]
        return len(connection.session.conn._channels) if connection.session else 0

    async def server_problem(self, code: str, number: int = 1, seconds: float = PATIENCE) -> Problem:
        def reached() -> Problem | None:
            status = self.server_status(number)
            return status.problem if status and status.problem and status.problem.code == code else None

        return await self.until(reached, seconds)

    async def close(self) -> None:
        await self.supervisor.close()
