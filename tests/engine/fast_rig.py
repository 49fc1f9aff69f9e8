"""A scripted SSH server, a hostile network before it and real clients, to hold the fast path against the plain one."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar, cast
from unittest.mock import patch

import asyncssh
import uvloop
from asyncssh.constants import MSG_IGNORE

from forwards.engine import connection
from forwards.engine.channel import Channel
from forwards.engine.fastpath import FastWire
from forwards.engine.gcm import PacketCipher
from forwards.engine.listeners import LocalListener
from forwards.engine.relay import Traffic
from forwards.engine.session import Session
from forwards.engine.specs import Auth, ForwardSpec, ServerSpec
from forwards.engine.tasks import Tasks
from tests.engine.proxy import Proxy
from tests.engine.rig import PATIENCE, eventually, local
from tests.engine.scripts import Outcome, Script, Stream

GCM = "aes128-gcm@openssh.com"
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
T = TypeVar("T")


@cache
def host_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")


class Server(asyncssh.SSHServer):
    """Lets everybody in who knows the password, and plays the script that the destination port is the number of."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._bench.server = server = cast(Any, conn)
        if not self._bench.filler:
            send_packet = server.send_packet
            server.send_packet = lambda kind, *args, **more: kind == MSG_IGNORE or send_packet(kind, *args, **more)

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return password == "secret"

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        bench = self._bench
        if not 0 < dest_port <= len(bench.scripts):
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "Connection refused")
        script = bench.scripts[dest_port - 1]
        session = Stream(dest_port, script, bench.at_server.setdefault(dest_port, Outcome()))
        bench.streams[dest_port] = session
        chan = bench.server.create_tcp_channel(window=script.window, max_pktsize=script.packet)
        return chan, self._later(session) if bench.held else session

    async def _later(self, session: Stream) -> Stream:
        await self._bench.held.wait()
        return session


@dataclass
class Bench:
    """One connection by one path, with a listener for each script; their numbers begin at 1."""

    scripts: Sequence[Script]
    server: Any = None
    session: Any = None
    traffic: Traffic = field(default_factory=lambda: Traffic(client_at_channel=False))
    at_server: dict[int, Outcome] = field(default_factory=dict)
    streams: dict[int, Stream] = field(default_factory=dict)
    listeners: list[LocalListener] = field(default_factory=list)
    refusals: list[BaseException] = field(default_factory=list)
    proxy: Any = None
    # Channels are opened when this is set.
    held: Any = None
    # Whether the server sends an empty message before each of a channel's, as asyncssh does and OpenSSH does not.
    filler: bool = False
    fast_received: int = 0
    fast_sent: int = 0
    rekeys: int = 0

    @property
    def conn(self) -> Any:
        return self.session.conn

    def port(self, number: int = 1) -> int:
        return self.listeners[number - 1].port

    def _answered(self, error: BaseException | None) -> None:
        if error is not None:
            self.refusals.append(error)

    async def listen(self, number: int, make: Callable[[int], ForwardSpec] = local) -> None:
        async def connect() -> Session:
            raise TimeoutError

        current: Callable[[], Session | None] = lambda: None if self.session.lost.done() else self.session  # noqa: E731
        listener = LocalListener(make(number), self.traffic, connect, current, self._answered)
        await listener.open()
        # A small buffer, so that a slow client is one for the relay too; accepted sockets inherit it.
        if number <= len(self.scripts) and self.scripts[number - 1].slow:
            listener._listening[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.listeners.append(listener)

    def channel(self) -> Channel:
        """Return the client's only channel."""
        (channel,) = self.conn._channels.values()
        return channel

    async def no_channels(self) -> None:
        """Wait for the end of every channel, at both ends."""
        await eventually(lambda: not (self.conn._channels or self.server._channels or self.traffic.active))


@contextmanager
def _counting(bench: Bench, on_fast_path: bool) -> Iterator[None]:
    """Choose the path, and count what passes by the fast one."""
    is_ours, seal_data = FastWire._is_ours, PacketCipher.seal_data

    def received(wire: FastWire, *args: Any) -> bool:
        ours = is_ours(wire, *args)
        bench.fast_received += ours
        return ours

    def sent(cipher: PacketCipher, channel: int, count: int) -> Any:
        bench.fast_sent += 1
        return seal_data(cipher, channel, count)

    with (
        patch.dict(os.environ, {"TUNNELWEB_FAST_PATH": str(int(on_fast_path))}),
        patch.object(FastWire, "_is_ours", received),
        patch.object(PacketCipher, "seal_data", sent),
    ):
        yield


@asynccontextmanager
async def forwarding(
    *scripts: Script,
    fast: bool = True,
    cipher: str = GCM,
    client_rekeys: int = 0,
    server_rekeys: int = 0,
    seed: int | None = None,
    filler: bool = False,
    **spec: Any,
) -> AsyncIterator[Bench]:
    """Connect and listen for the scripts; rekey after so many bytes, and slice by `seed`, where asked to."""
    bench = Bench(scripts, filler=filler)
    acceptor = await asyncssh.listen(
        "127.0.0.1",
        0,
        config=[],
        server_factory=lambda: Server(bench),
        server_host_keys=[host_key()],
        encryption_algs=[cipher],
        kex_algs=["curve25519-sha256"],
        compression_algs=None,
        **({"rekey_bytes": server_rekeys} if server_rekeys else {}),
    )
    port = acceptor.get_port()
    if seed is not None:
        bench.proxy = Proxy(port, seed)
        port = await bench.proxy.open()
    keeper = Tasks()
    wanted = {"host": "127.0.0.1", "port": port, "user": "somebody", "auth": Auth.PASSWORD, "password": "secret"}
    key = host_key().export_public_key().decode().strip()
    try:
        with _counting(bench, fast):
            bench.session = await connection.open_session(
                ServerSpec(id=1, name="Server", host_keys=(key,), **{**wanted, **spec}), None, keeper
            )
            send_kexinit = bench.conn._send_kexinit

            def rekey() -> None:
                bench.rekeys += 1
                send_kexinit()

            bench.conn._send_kexinit = rekey
            if client_rekeys:
                bench.conn._rekey_bytes = client_rekeys
            for number in range(1, len(scripts) + 1):
                await bench.listen(number)
            yield bench
    finally:
        for listener in bench.listeners:
            await listener.close()
        if bench.session:
            await bench.session.close()
        await keeper.cancel()
        acceptor.close()
        if bench.server:
            bench.server.abort()
            await bench.server.wait_closed()
        if bench.proxy:
            await bench.proxy.close()
        await acceptor.wait_closed()


def run(loop: str, work: Coroutine[Any, Any, T]) -> T:
    """Run on a loop of its own; nothing may be left of it, and the loop must not have had to report anything."""
    complaints: list[dict[str, Any]] = []

    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        # What a loop opens for itself when it first needs it is no leak.
        await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
        before = open_sockets()
        async with asyncio.timeout(3 * PATIENCE):
            result = await work
        await eventually(lambda: len(asyncio.all_tasks()) == 1, 5)
        await eventually(lambda: open_sockets() <= before, 5)
        return result

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result = runner.run(watched())
    assert complaints == []
    return result


def open_sockets() -> int:
    """Return how many sockets this process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        # The listing itself was one of them.
        with suppress(FileNotFoundError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    return count
