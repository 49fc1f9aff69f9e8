"""Rivals that are libraries: each forwards in a small program of its own, installed into a cache at first use."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import platformdirs

from tests.bench.contenders import Contender, Pair, Running, Site, Unavailable, launch

RIVALS = Path(__file__).parent / "rivals"
INSTALL_SECONDS = 180


def cache() -> Path:
    """Return where rivals are installed, so that only the first run downloads them."""
    return Path(platformdirs.user_cache_dir("tunnelweb-bench"))


class Program(Contender):
    """A program of tests/bench/rivals that takes PORT USER KEY KNOWN_HOSTS LISTEN:TARGET…"""

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def started(self, site: Site, kind: str, pairs: Sequence[Pair], stack: ExitStack) -> Running:
        where = [str(site.port), site.sshd.user, str(site.sshd.key), str(site.known_hosts)]
        forwards = [f"{port}:{target}" for port, target in pairs]
        return launch([*self.command(), *where, *forwards], stack, **self.environment())


class Asyncssh(Program):
    name = "asyncssh"
    title = "stock asyncssh"

    def command(self) -> list[str]:
        return [sys.executable, str(RIVALS / "asyncssh_forward.py")]


class NodeSsh2(Program):
    name = "node-ssh2"
    title = "node ssh2"

    def command(self) -> list[str]:
        return ["node", str(RIVALS / "ssh2_forward.js")]

    def environment(self) -> dict[str, str]:
        return {"NODE_PATH": str(cache() / "node" / "node_modules")}

    def prepare(self) -> None:
        folder = cache() / "node"
        package = folder / "node_modules" / "ssh2" / "package.json"
        if not package.exists():
            if not shutil.which("npm"):
                raise Unavailable(f"{self.title} is left out: it needs node and npm.")
            install(
                self.title, ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "ssh2"]
            )
        self.title = f"node ssh2 {json.loads(package.read_text())['version']}"


class Sshtunnel(Program):
    name = "sshtunnel"
    title = "sshtunnel"

    @property
    def python(self) -> Path:
        return cache() / "python" / "bin" / "python"

    def command(self) -> list[str]:
        return [str(self.python), str(RIVALS / "sshtunnel_forward.py")]

    def prepare(self) -> None:
        # Not in the project's own environment: paramiko would bring it packages nobody else needs.
        if not (self.python.parent / "ready").exists():
            install(self.title, [sys.executable, "-m", "venv", str(self.python.parent.parent)])
            install(self.title, [str(self.python), "-m", "pip", "install", "--quiet", "sshtunnel"])
            (self.python.parent / "ready").touch()
        asked = "import importlib.metadata as m; print(m.version('sshtunnel'), 'on paramiko', m.version('paramiko'))"
        found = subprocess.run([str(self.python), "-c", asked], capture_output=True, text=True, timeout=30)
        self.title = f"sshtunnel {found.stdout.strip()}"


def install(title: str, command: Sequence[str]) -> None:
    try:
        made = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{title} is left out: {error}.") from None
    if made.returncode:
        raise Unavailable(f"{title} is left out, it could not be installed: {' '.join(made.stderr[-300:].split())}")
