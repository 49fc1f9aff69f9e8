"""`manage.py serve` as a process: what it makes, what it prints, how it ends."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import live, sshd
from tests.conftest import REPOSITORY

SETUP = """
from forwards.models import *
server = Server.objects.create(name="My VPS", host="127.0.0.1", port={port}, user={user!r}, auth="key_file",
                               key_path={key!r})
HostKey.objects.create(server=server, algorithm="ssh-ed25519", public_key={host_key!r}, fingerprint="SHA256:x")
common = dict(server=server, enabled=True)
Forward.objects.create(name="local", local_port={local}, remote_host="127.0.0.1", remote_port={port}, **common)
Forward.objects.create(name="dynamic", kind="dynamic", local_port={dynamic}, **common)
Forward.objects.create(name="remote", kind="remote", local_host="127.0.0.1", local_port={port},
                       remote_host="127.0.0.1", remote_port={remote}, **common)
"""


@pytest.fixture
def prepared(tmp_path: Path) -> Iterator[live.Dashboard]:
    """A dashboard that a test starts and stops by itself; what it left running when it failed is ended."""
    dashboard = live.Dashboard(tmp_path)
    yield dashboard
    if dashboard.process is not None:
        dashboard.stop(signal.SIGKILL)


class Ports:
    def __init__(self) -> None:
        self.local, self.dynamic, self.remote = (sshd.free_port() for _ in range(3))


def set_up(dashboard: live.Dashboard, server: sshd.Sshd) -> Ports:
    """Make one running forward of each kind."""
    ports = Ports()
    values = {"port": server.port, "user": server.user, "key": str(server.key), "host_key": server.public_host_key}
    dashboard.shell(SETUP.format(**values, **vars(ports)))
    return ports


def states(data: Path) -> list[str]:
    with sqlite3.connect(data / "tunnelweb.sqlite3") as database:
        found = [row[0] for row in database.execute("SELECT state FROM forwards_forwardstatus")]
    database.close()
    return found


def until(condition, seconds: float = 15) -> None:
    """Wait for something in another process, which cannot be awaited."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def answers(port: int) -> bool:
    """Say whether an SSH server answers through a port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            return client.recv(4) == b"SSH-"
    except OSError:
        return False


def test_first_run_makes_everything_for_this_account_only(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with live.serving(data) as dashboard:
        assert data.stat().st_mode & 0o777 == 0o700
        assert {(data / name).stat().st_mode & 0o777 for name in ("signing.key", "sealing.key")} == {0o600}
        owners = dashboard.shell(
            "from django.contrib.auth.models import User\n"
            "out(list(User.objects.values_list('username', 'is_superuser', 'is_active')))"
        )
        assert owners == [["owner", True, True]]


def test_the_link_signs_in_once_and_nothing_is_open_without_it(tmp_path: Path) -> None:
    with live.serving(tmp_path) as dashboard:
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with urllib.request.build_opener().open(dashboard.url) as page:
            assert page.url.startswith(f"{dashboard.url}/sign-in/")
        with opener.open(dashboard.link) as page:
            assert page.url == f"{dashboard.url}/"
            assert "Port Forward" in page.read().decode()
        with urllib.request.build_opener().open(dashboard.link) as page:
            assert page.url != f"{dashboard.url}/"
        with opener.open(f"{dashboard.url}/static/vendor/tabler/tabler.min.css") as sheet:
            assert sheet.headers["Content-Type"].startswith("text/css")


def test_localhost_is_taken_on_both_loopback_addresses(tmp_path: Path) -> None:
    with live.serving(tmp_path) as dashboard:
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, dashboard.port), timeout=5).close()


def test_a_request_for_another_host_name_is_refused(tmp_path: Path) -> None:
    with live.serving(tmp_path) as dashboard:
        request = urllib.request.Request(dashboard.url, headers={"Host": f"evil.example:{dashboard.port}"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 400
        refused.value.close()


def test_a_taken_port_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        process = live.Dashboard(tmp_path).command("serve", "--no-browser", "--port", str(port))
        out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"Port {port} on localhost is already in use" in err
    assert len(err.strip().splitlines()) == 1 and out == ""


def test_a_second_worker_on_the_same_data_is_refused_in_words(tmp_path: Path) -> None:
    with live.serving(tmp_path) as dashboard:
        for command in (["serve", "--no-browser", "--port", "0"], ["worker"]):
            process = dashboard.command(*command)
            _, err = process.communicate(timeout=30)
            assert process.returncode == 1
            assert "already runs with the data directory" in err and "Traceback" not in err


def test_pages_without_a_worker_say_that_nothing_is_known(tmp_path: Path) -> None:
    with sshd.running() as server, live.serving(tmp_path, "--no-worker") as dashboard:
        set_up(dashboard, server)
        with urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open(dashboard.link) as page:
            html = page.read().decode()
        assert html.count('data-state="unknown"') == 3
        assert "The worker is not running" in html


def test_a_worker_alone_runs_forwards_and_ends_clean(prepared: live.Dashboard, tmp_path: Path) -> None:
    dashboard = prepared
    dashboard.run("migrate", "-v", "0")
    with sshd.running() as server:
        ports = set_up(dashboard, server)
        dashboard.process = dashboard.command("worker")
        until(lambda: answers(ports.local) and answers(ports.remote))
        assert dashboard.stop() == (0, "")
        assert set(states(tmp_path)) == {"stopped"}


@pytest.mark.parametrize("half", range(2))
def test_ten_times_in_a_row_it_ends_in_order_and_forwards_come_back(
    half: int, prepared: live.Dashboard, tmp_path: Path
) -> None:
    """Two of these make the twenty times the promise asks for; they run in parallel."""
    dashboard = prepared
    dashboard.run("migrate", "-v", "0")
    with sshd.running() as server:
        ports = set_up(dashboard, server)
        for turn in range(10):
            dashboard.start()
            until(lambda: states(tmp_path) == ["listening"] * 3)
            assert answers(ports.local) and answers(ports.remote)
            with socket.create_connection(("127.0.0.1", ports.local)) as client:
                assert client.recv(4) == b"SSH-"
                began = time.monotonic()
                code, err = dashboard.stop(signal.SIGINT if turn % 2 else signal.SIGTERM)
            assert (code, err) == (0, "")
            assert time.monotonic() - began < 10
            assert states(tmp_path) == ["stopped"] * 3
            for port in vars(ports).values():
                socket.create_server(("127.0.0.1", port)).close()
        wanted = dashboard.shell("from forwards.models import *\nout(Forward.objects.filter(enabled=True).count())")
        assert wanted == 3


def test_killed_without_warning_it_comes_back_as_it_was(prepared: live.Dashboard, tmp_path: Path) -> None:
    dashboard = prepared
    dashboard.run("migrate", "-v", "0")
    with sshd.running() as server:
        ports = set_up(dashboard, server)
        dashboard.start()
        until(lambda: answers(ports.local))
        assert dashboard.process is not None
        dashboard.process.kill()
        dashboard.process.communicate(timeout=15)
        dashboard.start()
        until(lambda: answers(ports.local) and answers(ports.remote))
        assert dashboard.stop() == (0, "")


def test_another_link_can_be_printed(tmp_path: Path) -> None:
    with live.serving(tmp_path) as dashboard:
        link = dashboard.run("sign_in_link", "--address", dashboard.url).strip()
        with urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open(link) as page:
            assert page.url == f"{dashboard.url}/"


def test_settings_make_the_data_directory_before_anything_else_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "TUNNELWEB_DATA": str(tmp_path / "a" / "b")}
    subprocess.run(
        [sys.executable, str(REPOSITORY / "manage.py"), "check"],
        env=environment | {"DJANGO_SETTINGS_MODULE": "tunnelweb.settings"},
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
