"""Tunnelweb as users run it: a `manage.py serve` process with a data directory of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY

READY = re.compile(r"Tunnelweb is ready\. Sign in once with this link: (http://\S+)")


class Dashboard:
    """One data directory and the process that serves it. `url` has no slash at its end."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self.arguments = arguments
        self.link = self.url = ""
        self.process: subprocess.Popen[str] | None = None
        self._environment = {**os.environ, "TUNNELWEB_DATA": str(data), "DJANGO_SETTINGS_MODULE": "tunnelweb.settings"}

    def start(self, port: int = 0) -> None:
        """Start and return once the sign-in link is printed."""
        self.process = self.command("serve", "--no-browser", "--port", str(port), *self.arguments)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = READY.match(line)
        if not match:
            out, err = self.process.communicate(timeout=10)
            raise RuntimeError(line + out + err)
        self.link = match[1]
        self.url = self.link.partition("/sign-in/")[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a manage.py command on this data directory."""
        return subprocess.Popen(
            [sys.executable, str(REPOSITORY / "manage.py"), *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> str:
        """Run a manage.py command to its end and return what it printed."""
        process = self.command(*arguments)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
        return out

    def shell(self, code: str) -> Any:
        """Run code in `manage.py shell`, where a JSON value given to `out()` is returned."""
        wrapped = "import json\ndef out(value):\n    print('OUT' + json.dumps(value))\n" + code
        for line in self.run("shell", "-v", "0", "-c", wrapped).splitlines():
            if line.startswith("OUT"):
                return json.loads(line[3:])
        return None

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End the process and return its exit code and what it wrote to stderr."""
        assert self.process is not None
        process, self.process = self.process, None
        process.send_signal(number)
        try:
            _, err = process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            _, err = process.communicate(timeout=15)
            raise AssertionError(f"did not end within 15 s: {err}") from None
        return process.returncode, err


@contextmanager
def serving(data: Path, *arguments: str) -> Iterator[Dashboard]:
    """Run a dashboard for the length of a `with` block."""
    dashboard = Dashboard(data, *arguments)
    dashboard.start()
    try:
        yield dashboard
    finally:
        if dashboard.process is not None:
            dashboard.stop()
