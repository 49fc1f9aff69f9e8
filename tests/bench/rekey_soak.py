"""Changes keys all the time under load: `python -m tests.bench.rekey_soak [--seconds 60] [--plain] [--uvloop]`.

An sshd that rekeys every MiB, a client that does as well, and a forward with several streams both ways at once: some
are echoed, some digested by the far end, some sent by it. The SHA-256 of what came must be that of what was sent.
Prints how much passed, how often keys changed and how many streams were whole. Exits with 1 on any difference.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import sys
import time
from dataclasses import dataclass
from typing import Any

import uvloop

from forwards.engine.connection import open_session
from forwards.engine.fastpath import FastWire
from forwards.engine.listeners import LocalListener
from forwards.engine.relay import Traffic
from forwards.engine.session import Session
from forwards.engine.tasks import Tasks
from tests.engine.rig import Destinations, digest, echo, local, server_spec, source
from tests.sshd import Sshd, running

MIB = 1 << 20
LARGEST = 6 * MIB


@dataclass
class Tally:
    received: int = 0
    sent: int = 0
    rekeys: int = 0
    fast: int = 0
    plain: int = 0
    ok: int = 0
    failed: int = 0


async def main(seconds: float, streams: int) -> Tally:
    tally = Tally()
    with running("RekeyLimit 1M none\n") as sshd:
        await soak(sshd, seconds, streams, tally)
    return tally


async def soak(sshd: Sshd, seconds: float, streams: int, tally: Tally) -> None:
    keeper, destinations, traffic = Tasks(), Destinations(), Traffic(client_at_channel=False)
    session = await open_session(server_spec(sshd), None, keeper)
    count(session, tally)
    down = random.Random(1).randbytes(LARGEST)
    servers = [await destinations.serve(handler) for handler in (echo, digest, source(down))]
    listeners = []

    async def nobody() -> Session:
        raise TimeoutError

    try:
        for server in servers:
            listener = LocalListener(local(server.port), traffic, nobody, lambda: session, lambda error: None)
            await listener.open()
            listeners.append(listener)
        ports = [listener.port for listener in listeners]
        until = time.monotonic() + seconds
        kinds = (echoed, digested, sourced)
        await asyncio.gather(
            *(repeat(kinds[n % 3], ports[n % 3], hashlib.sha256(down).digest(), until, tally) for n in range(streams))
        )
        if session.lost.done():
            tally.failed += 1
            print("The connection was lost:", session.lost.result(), file=sys.stderr)
    finally:
        for listener in listeners:
            await listener.close()
        await session.close()
        await destinations.close()
        await keeper.cancel()
    counters = traffic.counters()
    tally.received, tally.sent = counters.bytes_in, counters.bytes_out


def count(session: Session, tally: Tally) -> None:
    """Rekey every MiB, and count how often, and how many messages each path takes in."""
    conn: Any = session.conn
    conn._rekey_bytes = MIB
    send_kexinit = conn._send_kexinit

    def rekey() -> None:
        tally.rekeys += 1
        send_kexinit()

    conn._send_kexinit = rekey
    if isinstance(session.wire, FastWire):
        wire: Any = session.wire
        is_ours, data_received = wire._is_ours, conn.data_received

        def fast(*args: Any) -> bool:
            ours: bool = is_ours(*args)
            tally.fast += ours
            return ours

        def plain(data: bytes) -> None:
            tally.plain += len(data)
            data_received(data)

        wire._is_ours, conn.data_received = fast, plain


async def repeat(play: Any, port: int, down: bytes, until: float, tally: Tally) -> None:
    while time.monotonic() < until:
        try:
            async with asyncio.timeout(60):
                whole = await play(port, down)
        except (OSError, TimeoutError) as error:
            print("A stream broke:", repr(error), file=sys.stderr)
            whole = False
        tally.ok += whole
        tally.failed += not whole
        if not whole:
            return


async def _talk(port: int, data: bytes) -> tuple[bytes, bytes]:
    """Send, and receive at the same time; return what came and its SHA-256."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:

        async def send() -> None:
            for start in range(0, len(data), 65536):
                writer.write(data[start : start + 65536])
                await writer.drain()
            writer.write_eof()

        sending = asyncio.ensure_future(send())
        seen, last = hashlib.sha256(), b""
        while part := await reader.read(65536):
            seen.update(part)
            last = (last + part)[-64:]
        await sending
        return seen.digest(), last
    finally:
        writer.close()


def _random() -> bytes:
    return os.urandom(random.randrange(1, LARGEST))


async def echoed(port: int, down: bytes) -> bool:
    data = _random()
    return (await _talk(port, data))[0] == hashlib.sha256(data).digest()


async def digested(port: int, down: bytes) -> bool:
    data = _random()
    return (await _talk(port, data))[1] == hashlib.sha256(data).hexdigest().encode()


async def sourced(port: int, down: bytes) -> bool:
    return (await _talk(port, b""))[0] == down


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--streams", type=int, default=6)
    parser.add_argument("--plain", action="store_true", help="by asyncssh alone")
    parser.add_argument("--uvloop", action="store_true", help="on the other event loop")
    options = parser.parse_args()
    if options.plain:
        os.environ["TUNNELWEB_FAST_PATH"] = "0"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if options.uvloop else None) as runner:
        result = runner.run(main(options.seconds, options.streams))
    print(f"{result.received / MIB:.0f} MiB received, {result.sent / MIB:.0f} MiB sent, {result.rekeys} rekeys")
    if not options.plain:
        print(f"{result.fast} messages in by the fast path, {result.plain / MIB:.0f} MiB in by asyncssh")
    print(f"{result.ok} streams ok, {result.failed} failed")
    sys.exit(1 if result.failed or not result.ok or not result.rekeys else 0)
