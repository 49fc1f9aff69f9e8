"""The load generator on plain loopback, through a delay and a proxy, and through a real SSH client's SOCKS proxy."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import sshd
from tests.bench import measure
from tests.bench.contenders import DYNAMIC, LOCAL, Proxy, Site, Ssh
from tests.bench.load import Load, LoadError

SECONDS = 0.1
ESTABLISHED = "01"


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    return Load(tmp_path_factory.mktemp("load"))


@pytest.fixture(scope="module")
def port(load: Load) -> Iterator[int]:
    with load.serving() as port:
        yield port


@pytest.mark.parametrize("streams", [1, 8])
@pytest.mark.parametrize("mode", ["down", "up"])
def test_a_transfer_counts_what_arrived(load: Load, port: int, mode: str, streams: int) -> None:
    passed = load.run(mode, port, 0, streams, SECONDS)

    assert passed["bytes"] > 1e6
    assert SECONDS <= passed["seconds"] < 5


def test_round_trips_are_counted_and_ordered(load: Load, port: int) -> None:
    times = load.run("ping", port, 0, 64, SECONDS)

    assert times["count"] > 10
    assert 0 < times["p50"] <= times["p99"] <= times["max"]


@pytest.mark.parametrize("clients", [1, 50])
def test_connections_are_made_one_after_another_and_many_at_once(load: Load, port: int, clients: int) -> None:
    made = load.run("rate", port, 0, clients, SECONDS)

    assert made["connections"] > 0
    assert made["errors"] == 0


def test_idle_connections_are_held_until_the_block_ends(load: Load) -> None:
    with load.serving() as port:

        def held() -> int:
            rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            return sum(row[1] == f"0100007F:{port:04X}" and row[3] == ESTABLISHED for row in rows)

        def becomes(count: int) -> bool:
            # The kernel's table is no snapshot, and a handshake may end after connect() returned.
            deadline = time.monotonic() + 10
            while held() != count and time.monotonic() < deadline:
                time.sleep(0.02)
            return held() == count

        with load.holding(port, 0, 50):
            assert becomes(50)
        assert becomes(0)


def test_a_delay_counts_each_way_and_nothing_is_lost(load: Load, port: int) -> None:
    with load.delaying(port, 0.02) as far:
        times = load.run("ping", far, 0, 64, 0.2)
        passed = load.run("up", far, 0, 2, SECONDS)

    assert times["p50"] >= 40_000
    assert passed["bytes"] > 0


def test_a_refused_connection_is_an_error(load: Load) -> None:
    with pytest.raises(LoadError, match="Connection refused"):
        load.run("ping", sshd.free_port(), 0, 64, SECONDS)


def test_a_proxy_is_run_ended_and_known_by_its_processes(load: Load, port: int, tmp_path: Path) -> None:
    with (
        sshd.running() as server,
        Proxy(load).running(Site(server, server.port, tmp_path), LOCAL, [(0, port)]) as tunnel,
    ):
        listening = tunnel.ports[0]
        before = measure.cpu(tunnel.roots)
        load.run("down", *tunnel.address(0), 1, SECONDS)
        # `up` fails when the count that comes back is not what it sent.
        load.run("up", *tunnel.address(0), 8, SECONDS)
        assert load.run("rate", *tunnel.address(0), 20, SECONDS)["errors"] == 0
        assert listening in measure.listening()
        assert 0 < measure.spent(before, measure.cpu(tunnel.roots)) < 10
        assert measure.pss(tunnel.roots) > 100

    assert listening not in measure.listening()
    assert not any(Path(f"/proc/{pid}").exists() for pid in tunnel.roots)


@pytest.mark.parametrize("kind", [LOCAL, DYNAMIC])
def test_openssh_forwards_to_the_load_generator(load: Load, port: int, tmp_path: Path, kind: str) -> None:
    with sshd.running() as server:
        contender = Ssh("ssh", "ssh")
        with contender.running(Site(server, server.port, tmp_path), kind, [(sshd.free_port(), port)]) as tunnel:
            assert len(tunnel.sessions) >= 1
            assert load.run("up", *tunnel.address(0), 2, SECONDS)["bytes"] > 0
            assert load.run("rate", *tunnel.address(0), 2, SECONDS)["errors"] == 0


def test_a_process_and_its_children_are_one_tree() -> None:
    assert os.getpid() in measure.tree([os.getppid()])


def test_listening_ports_are_those_of_this_moment() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port in measure.listening()
    assert port not in measure.listening()
