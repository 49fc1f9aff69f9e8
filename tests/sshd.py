"""A real OpenSSH server on loopback, with keys and a config of its own."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"

_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
ListenAddress ::1
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100:30:200
LogLevel ERROR
"""


def keygen(path: Path, *, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair and return the path of the private half."""
    path.unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "", "-f", str(path)], check=True, timeout=60
    )
    return path


def public_key(private: Path) -> str:
    """Return `algorithm base64` of a private key file's public half."""
    return " ".join(private.with_suffix(".pub").read_text().split()[:2])


def free_port() -> int:
    """Return a TCP port that was free on both loopback addresses a moment ago.

    It lies below those the system gives to outgoing connections, of which busy tests make many.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket(socket.AF_INET) as four, socket.socket(socket.AF_INET6) as six:
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                four.bind(("127.0.0.1", port))
                six.bind(("::1", port))
            except OSError:
                continue
            return port


class Sshd:
    """One sshd process. `extra` are further lines of sshd_config; `user` may sign in with `key`.

    `host_keys` are the kinds of its host keys, of which `host_key` is the first.
    """

    def __init__(self, folder: Path, extra: str = "", host_keys: Sequence[str] = ("ed25519",)) -> None:
        self.folder = folder
        self.extra = extra
        self.port = free_port()
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.key = keygen(folder / "client_key")
        self.host_keys = [keygen(folder / f"host_key_{kind}", kind=kind) for kind in host_keys]
        (folder / "authorized_keys").write_text(public_key(self.key) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host_key(self) -> Path:
        return self.host_keys[0]

    @property
    def public_host_key(self) -> str:
        return public_key(self.host_key)

    @property
    def log(self) -> str:
        """What it logged so far; sign-ins only with `LogLevel VERBOSE` among the extra lines."""
        return (self.folder / "sshd.log").read_text(errors="replace")

    def start(self) -> None:
        """Start and return once it accepts connections."""
        if os.getuid() == 0:
            # Debian's sshd wants its privilege separation directory, which its service makes at boot.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.folder / "sshd_config"
        # The first value of a keyword counts, so what a test asks for comes first.
        keys = "".join(f"HostKey {key}\n" for key in self.host_keys)
        config.write_text(self.extra + keys + _CONFIG.format(port=self.port, folder=self.folder))
        written = self.folder / "sshd.pid"
        written.unlink(missing_ok=True)
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=log, start_new_session=True)
        # Written once it listens. To connect would leave a session that a test may count.
        deadline = time.monotonic() + 10
        while not written.exists():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(self.log)
            time.sleep(0.01)

    def stop(self) -> None:
        """End the server and every session it serves."""
        if self._process is None:
            return
        # Stopped, it takes in nobody between the end of the sessions and its own.
        self._process.send_signal(signal.SIGSTOP)
        self.kill_sessions()
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)
        self._process.wait(timeout=10)
        self._process = None

    def sessions(self) -> list[int]:
        """Return the pids of the processes that serve a connection."""
        if self._process is None:
            return []
        tree = [self._process.pid]
        for pid in tree:
            tree += _children(pid)
        return tree[1:]

    def connections(self) -> int:
        """Return how many connections it serves."""
        return len(_children(self._process.pid)) if self._process else 0

    def freeze(self) -> None:
        """Make every session stand still, its connection open, until it is killed."""
        for pid in self.sessions():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def kill_sessions(self) -> None:
        """Cut every connection, the server itself staying up."""
        for pid in self.sessions():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _children(pid: int) -> list[int]:
    children: list[int] = []
    # A process may end while it is being looked at.
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            children += [int(child) for child in task.read_text().split()]
    return children


@contextmanager
def running(extra: str = "", host_keys: Sequence[str] = ("ed25519",)) -> Iterator[Sshd]:
    """Run an sshd for the length of a `with` block."""
    folder = Path(tempfile.mkdtemp(prefix="tunnelweb-sshd-"))
    server = Sshd(folder, extra, host_keys)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
