from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys

import pytest

from forwards.engine.binding import bind, bind_all
from forwards.engine.errors import EngineError, Retry
from tests.engine.rig import local


def ends(sockets) -> list[tuple[str, int]]:
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(bound).getsockname()[:2] for bound in sockets]


async def refused(**changes) -> EngineError:
    with pytest.raises(EngineError) as error:
        ends(await bind(local(1, **changes)))
    return error.value


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.5", "::1"])
async def test_an_address_is_listened_on(host) -> None:
    assert [name for name, _ in ends(await bind(local(1, listen_host=host)))] == [host]


@pytest.mark.parametrize(("host", "both"), [("localhost", ["127.0.0.1", "::1"]), ("*", ["0.0.0.0", "::"])])
async def test_localhost_and_every_interface_are_two_addresses_on_one_port(host, both) -> None:
    found = ends(await bind(local(1, listen_host=host)))

    assert sorted(name for name, _ in found) == both
    assert len({port for _, port in found}) == 1


def test_a_machine_without_ipv6_listens_on_what_it_has() -> None:
    addresses = [(int(socket.AF_INET), "127.0.0.1"), (int(socket.AF_INET6), "2001:db8::1")]

    assert [name for name, _ in ends(bind_all(addresses, 0))] == ["127.0.0.1"]
    with pytest.raises(OSError, match="assign") as error:
        bind_all(addresses[1:], 0)
    assert error.value.errno == errno.EADDRNOTAVAIL


async def test_one_of_two_addresses_taken_is_a_port_in_use_and_leaves_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        error = await refused(listen_host="localhost", listen_port=taken.getsockname()[1])

    assert error.problem.code == "port_in_use_ours"
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_port_in_use_names_who_holds_it_and_a_free_one() -> None:
    script = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) as other:
        port = int(other.stdout.readline())
        error = await refused(listen_port=port)
        other.communicate("\n")

    assert (error.problem.code, error.retry) == ("port_in_use_by", Retry.SLOWLY)
    assert error.problem.params["pid"] == other.pid
    assert error.problem.params["program"].startswith("python")
    assert error.problem.params["free_port"] > port


async def test_a_port_somebody_keeps_without_listening_is_in_use_by_nobody_known() -> None:
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))

        assert (await refused(listen_port=kept.getsockname()[1])).problem.code == "port_in_use"


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_that_is_not_this_machines_is_told(host) -> None:
    error = await refused(listen_host=host)

    assert (error.problem.code, error.problem.params["host"]) == ("bind_address", host)


async def test_a_port_below_1024_needs_root_and_is_not_tried_again() -> None:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        error = await refused(listen_port=81)
    finally:
        os.seteuid(user)

    assert (error.problem.code, error.retry) == ("port_privileged", Retry.NEVER)
