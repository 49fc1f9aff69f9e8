"""Who is measured: what they have in common, OpenSSH's client, autossh, and a proxy without cryptography."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import measure
from tests.bench.load import Load
from tests.sshd import Sshd

LOCAL, REMOTE, DYNAMIC = KINDS = ("local", "remote", "dynamic")

# What listens, and where it leads; a dynamic forward leads wherever the client asks.
Pair = tuple[int, int]

STOP_SECONDS = 5
LISTEN_SECONDS = 90


class Unavailable(Exception):
    """A contender cannot take part; the text is a sentence that says why."""


@dataclass(frozen=True)
class Site:
    """The SSH server of a run, and where to reach it: `port` may be that of a relay in front of it."""

    sshd: Sshd
    port: int
    folder: Path

    @property
    def known_hosts(self) -> Path:
        path = self.folder / f"known_hosts_{self.port}"
        # Once: those who started before may be reading it.
        if not path.exists():
            path.write_text(f"[127.0.0.1]:{self.port} {self.sshd.public_host_key}\n")
        return path


@dataclass
class Running:
    """Forwards that were started. `roots` are the processes whose cost counts, `began` is when Start was pressed."""

    roots: list[int]
    began: float
    # Returns what went wrong when nothing listens, and whether it never will.
    complaint: Callable[[], str]
    ended: Callable[[], bool]


@dataclass
class Tunnel:
    """Forwards that listen: `ports[i]` leads to `targets[i]`. `sessions` are the SSH server's processes for them."""

    kind: str
    ports: list[int]
    targets: list[int]
    roots: list[int]
    seconds: float
    sessions: list[int] = field(default_factory=list)

    def address(self, index: int) -> tuple[int, int]:
        """Return the port to connect to, and the one to ask its SOCKS proxy for, or 0."""
        if self.kind == DYNAMIC:
            return self.ports[0], self.targets[index]
        return self.ports[index], 0


class Contender:
    """One way to forward ports. `one_each` says whether its users run many forwards in a process each."""

    name = ""
    title = ""
    kinds: tuple[str, ...] = (LOCAL,)
    one_each = False
    encrypts = True

    def prepare(self) -> None:
        """Install what is missing. Raises Unavailable."""

    def started(self, site: Site, kind: str, pairs: Sequence[Pair], stack: ExitStack) -> Running:
        """Start forwards, and have the stack end them. Raises Unavailable."""
        raise NotImplementedError

    @contextmanager
    def running(self, site: Site, kind: str, pairs: Sequence[Pair], *, split: bool = False) -> Iterator[Tunnel]:
        """Run forwards for the length of a `with` block, `split` as its users split many. Raises Unavailable."""
        with ExitStack() as stack:
            sessions = set(site.sshd.sessions())
            parts = [[pair] for pair in pairs] if split and self.one_each else [pairs]
            if kind == DYNAMIC:
                parts = [pairs[:1]]
            started = [self.started(site, kind, part, stack) for part in parts]
            wanted = {port for part in parts for port, _ in part}
            deadline = time.perf_counter() + LISTEN_SECONDS
            while not wanted <= measure.listening():
                if time.perf_counter() > deadline or any(one.ended() for one in started):
                    said = " ".join({one.complaint() for one in started if one.complaint()})
                    raise Unavailable(f"{self.title} did not listen. {said}".strip())
                time.sleep(0.01)
            seconds = time.perf_counter() - started[0].began
            yield Tunnel(
                kind,
                [port for port, _ in pairs],
                [target for _, target in pairs],
                [pid for one in started for pid in one.roots],
                seconds,
                [pid for pid in site.sshd.sessions() if pid not in sessions],
            )


def launch(command: Sequence[str], stack: ExitStack, **environment: str) -> Running:
    """Start a program, and have the stack end it and what it started."""
    # The stack closes it.
    log = stack.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    stack.callback(end, process)

    def complaint() -> str:
        log.seek(0)
        return " ".join(log.read()[-300:].split())

    return Running([process.pid], began, complaint, lambda: process.poll() is not None)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session of its own, and every process of that."""
    process.terminate()
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Ssh(Contender):
    """`ssh -N` with `-L`, `-R` or `-D`."""

    kinds = KINDS
    one_each = True

    def __init__(self, name: str, title: str, *options: str) -> None:
        self.name, self.title, self.options = name, title, options

    def command(self, site: Site, kind: str, pairs: Sequence[Pair]) -> list[str]:
        if kind == DYNAMIC:
            forwards = ["-D", f"127.0.0.1:{pairs[0][0]}"]
        else:
            letter = {LOCAL: "-L", REMOTE: "-R"}[kind]
            forwards = [word for port, to in pairs for word in (letter, f"127.0.0.1:{port}:127.0.0.1:{to}")]
        settings = {
            "UserKnownHostsFile": site.known_hosts,
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ExitOnForwardFailure": "yes",
        }
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        where = ["-p", str(site.port), "-i", str(site.sshd.key), f"{site.sshd.user}@127.0.0.1"]
        return ["-N", "-F", "none", *options, *self.options, *forwards, *where]

    def started(self, site: Site, kind: str, pairs: Sequence[Pair], stack: ExitStack) -> Running:
        return launch(["ssh", *self.command(site, kind, pairs)], stack)


class Autossh(Ssh):
    kinds = (LOCAL,)

    def prepare(self) -> None:
        if not shutil.which("autossh"):
            raise Unavailable("autossh is left out: it is not installed (package autossh).")

    def started(self, site: Site, kind: str, pairs: Sequence[Pair], stack: ExitStack) -> Running:
        return launch(["autossh", "-M", "0", *self.command(site, kind, pairs)], stack, AUTOSSH_GATETIME="0")


class Proxy(Contender):
    """Passes bytes on without cryptography or a second hop: the limit."""

    name = "proxy"
    title = "TCP proxy without cryptography"
    encrypts = False

    def __init__(self, load: Load) -> None:
        self._load = load

    @contextmanager
    def running(self, site: Site, kind: str, pairs: Sequence[Pair], *, split: bool = False) -> Iterator[Tunnel]:
        with ExitStack() as stack:
            began = time.perf_counter()
            proxies = [stack.enter_context(self._load.passing_on(target)) for _, target in pairs]
            ports, processes = [port for port, _ in proxies], [pid for _, pid in proxies]
            targets = [target for _, target in pairs]
            yield Tunnel(kind, ports, targets, processes, time.perf_counter() - began)
