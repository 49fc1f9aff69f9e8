"""What is measured. A probe takes a contender's running forwards and returns figures by the names of report.METRICS."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from tests.bench import measure
from tests.bench.contenders import KINDS, LOCAL, Contender, Pair, Site, Tunnel
from tests.bench.load import Load, LoadError

GIB = 1024**3
# A transfer beside a round trip begins this much earlier and ends this much later.
AHEAD = 0.4
FIRST_USE_SECONDS = 5
BULK, PING = 0, 1

Figures = dict[str, float]


@dataclass(frozen=True)
class Sizes:
    """How long and how much. The defaults are those of a full run."""

    seconds: float = 2.0
    far_seconds: float = 5.0
    idle: int = 1000
    forwards: int = 200
    # Before memory is read.
    settle: float = 1.0


QUICK = Sizes(seconds=0.6, far_seconds=2.0, idle=200, forwards=20, settle=0.3)


@dataclass(frozen=True)
class Bench:
    """What every probe needs: `targets` are servers of load, one for transfers and one for the rest."""

    load: Load
    site: Site
    targets: Sequence[int]
    sizes: Sizes

    def pairs(self, count: int = 2) -> list[Pair]:
        """Return free ports to listen on, leading to the targets in turn."""
        # Not ports the system gives to outgoing connections: one could take a port before it is listened on.
        taken = measure.listening()
        free = [port for port in range(10_000, 32_000) if port not in taken]
        return list(zip(random.sample(free, count), itertools.cycle(self.targets), strict=False))


Probe = Callable[[Bench, Tunnel], Figures]


def transfer(mode: str, streams: int) -> Probe:
    def probe(bench: Bench, tunnel: Tunnel) -> Figures:
        client, server = measure.cpu(tunnel.roots), measure.cpu(tunnel.sessions)
        passed = bench.load.run(mode, *tunnel.address(BULK), streams, bench.sizes.seconds)
        gib = passed["bytes"] / GIB
        name = f"{mode}{streams}"
        figures = {
            name: passed["bytes"] / 1e6 / passed["seconds"],
            f"{name}_client_cpu": measure.spent(client, measure.cpu(tunnel.roots)) / gib,
        }
        if tunnel.sessions:
            figures[f"{name}_sshd_cpu"] = measure.spent(server, measure.cpu(tunnel.sessions)) / gib
        return figures

    return probe


def round_trip(bench: Bench, tunnel: Tunnel) -> Figures:
    times = bench.load.run("ping", *tunnel.address(PING), 64, bench.sizes.seconds)
    return {"rtt_p50": times["p50"], "rtt_p99": times["p99"]}


def round_trip_loaded(bench: Bench, tunnel: Tunnel) -> Figures:
    seconds = bench.sizes.seconds
    with bench.load.running("down", *tunnel.address(BULK), 1, seconds + 2 * AHEAD):
        time.sleep(AHEAD)
        times = bench.load.run("ping", *tunnel.address(PING), 64, seconds)
    # What was on its way when the transfer was stopped must not come into the next measurement.
    time.sleep(AHEAD)
    return {"loaded_p50": times["p50"], "loaded_p99": times["p99"]}


def rate(clients: int) -> Probe:
    def probe(bench: Bench, tunnel: Tunnel) -> Figures:
        made = bench.load.run("rate", *tunnel.address(PING), clients, bench.sizes.seconds)
        if made["errors"]:
            raise LoadError(f"{made['errors']} of {made['errors'] + made['connections']} connections failed")
        return {f"rate{clients}": made["connections"] / made["seconds"]}

    return probe


def far(bench: Bench, tunnel: Tunnel) -> Figures:
    passed = bench.load.run("down", *tunnel.address(BULK), 1, bench.sizes.far_seconds)
    return {"far_down": passed["bytes"] / 1e6 / passed["seconds"]}


# By scenario, then what is measured on forwards that run through all rounds.
STANDING: dict[str, list[Probe]] = {
    "bulk": [transfer(mode, streams) for streams in (1, 8) for mode in ("down", "up")],
    "latency": [round_trip, round_trip_loaded],
    "rate": [rate(1), rate(50)],
    "far": [far],
}


def idle(bench: Bench, contender: Contender) -> Figures:
    """Measure memory per open connection, on a fresh process: memory once used would hide what is needed."""
    with contender.running(bench.site, LOCAL, bench.pairs()) as tunnel:
        address = tunnel.address(PING)
        with bench.load.holding(*address, 10):
            time.sleep(bench.sizes.settle)
        time.sleep(bench.sizes.settle)
        before = measure.pss(tunnel.roots)
        with bench.load.holding(*address, bench.sizes.idle):
            time.sleep(bench.sizes.settle)
            return {"idle_pss": (measure.pss(tunnel.roots) - before) / bench.sizes.idle}


def many(bench: Bench, contender: Contender) -> Figures:
    """Measure many forwards to one server: until all listen, their memory, and that of each beyond the first."""
    count = bench.sizes.forwards
    memory = {}
    for number in (1, count):
        with contender.running(bench.site, LOCAL, bench.pairs(number), split=True) as tunnel:
            time.sleep(bench.sizes.settle)
            memory[number] = measure.pss(tunnel.roots)
            seconds = tunnel.seconds
    return {
        "many_seconds": seconds,
        "many_pss": memory[count] / 1024,
        "further_pss": (memory[count] - memory[1]) / (count - 1),
    }


# What is measured on forwards of its own.
FRESH: dict[str, Callable[[Bench, Contender], Figures]] = {"idle": idle, "many": many}

SCENARIOS = (*STANDING, *FRESH)
# Whom a scenario does not suit: the proxy opens no forward to a server.
ENCRYPTED_ONLY = {"far", "idle", "many"}
# Which scenarios make sense beyond local forwards: the others measure what all kinds share.
EVERY_KIND = {kind: {"bulk", "latency", "rate"} if kind != LOCAL else set(SCENARIOS) for kind in KINDS}


def use_once(bench: Bench, address: tuple[int, int]) -> None:
    """Pass a few bytes. The very first client may come too early, one after some seconds not. Raises LoadError."""
    deadline = time.perf_counter() + FIRST_USE_SECONDS
    while True:
        try:
            bench.load.run("ping", *address, 64, 0.1)
            return
        except LoadError:
            if time.perf_counter() > deadline:
                raise
            time.sleep(0.2)


def stand(
    bench: Bench, contenders: Sequence[Contender], kind: str, stack: ExitStack, note: Callable[[str], None]
) -> dict[str, Tunnel]:
    """Start a forward for transfers and one for the rest with each contender, and use each once; who fails is noted."""
    tunnels = {}
    for contender in contenders:
        own = ExitStack()
        try:
            tunnel = own.enter_context(contender.running(bench.site, kind, bench.pairs()))
            for index in (BULK, PING):
                use_once(bench, tunnel.address(index))
        except Exception as error:
            own.close()
            note(f"{contender.title} ({kind}) is left out: {error}")
        except BaseException:
            own.close()
            raise
        else:
            stack.push(own.pop_all())
            tunnels[contender.name] = tunnel
    return tunnels
