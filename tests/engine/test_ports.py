from __future__ import annotations

import os
import socket
import subprocess
import sys

from forwards.engine.ports import Holder, holder, is_free, next_free

FOUR = [(int(socket.AF_INET), "127.0.0.1")]
BOTH = [*FOUR, (int(socket.AF_INET6), "::1")]


def test_a_port_of_our_own_is_known_as_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mine:
        found = holder(mine.getsockname()[1])

    assert found is not None
    assert (found.pid, found.ours) == (os.getpid(), True)


def test_another_program_is_named_with_its_pid() -> None:
    script = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) as other:
        port = int(other.stdout.readline())
        found = holder(port)
        other.communicate("\n")

    assert found == Holder(other.pid, found.program, ours=False)
    assert found.program.startswith("python")


def test_nobody_holds_a_port_that_is_only_bound() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))

        assert holder(bound.getsockname()[1]) is None


def test_a_port_is_free_when_it_is_on_every_address() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]

        assert is_free(FOUR, port)
        assert not is_free(BOTH, port)
    assert is_free(BOTH, port)


def test_an_address_the_machine_does_not_have_is_in_nobodys_way() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert is_free([*FOUR, (int(socket.AF_INET6), "2001:db8::1")], port)


def test_the_next_free_port_is_above_and_none_is_past_the_last() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = next_free(FOUR, port)

    assert found is None or found > port
    assert next_free(FOUR, 65535) is None
    assert next_free(FOUR, 1024, tries=0) is None
