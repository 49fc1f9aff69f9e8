"""Compiles the load generator and runs it. It is written in C to be faster than what it measures."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROGRAMS = ("load", "serve", "delay", "proxy")


class LoadError(Exception):
    """Traffic did not pass as it should; the text says what."""


class Load:
    """The compiled programs, in a folder that the caller removes. What a `with` block started ends with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise LoadError("The load generator needs a C compiler: install gcc.")
        for name in PROGRAMS:
            source, program = HERE / f"{name}.c", folder / name
            flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
            made = subprocess.run(
                [compiler, *flags, "-o", str(program), str(source)], capture_output=True, text=True, timeout=60
            )
            if made.returncode:
                raise LoadError(made.stderr)

    @contextmanager
    def serving(self) -> Iterator[int]:
        """Run the server end for the length of a `with` block, which gets its port."""
        with self._started("serve") as process:
            yield _answer(process)["port"]

    @contextmanager
    def delaying(self, target: int, seconds: float) -> Iterator[int]:
        """Pass connections on to a port, each byte `seconds` late; the block gets the port to connect to."""
        with self._started("delay", target, round(seconds * 1e6)) as process:
            yield _answer(process)["port"]

    @contextmanager
    def passing_on(self, target: int) -> Iterator[tuple[int, int]]:
        """Pass connections on to a port without more; the block gets the port to connect to, and the process id."""
        with self._started("proxy", target) as process:
            yield _answer(process)["port"], process.pid

    def run(self, mode: str, port: int, target: int, number: int, seconds: float) -> dict[str, Any]:
        """Run one mode of load.c to its end. Raises LoadError, at the latest a minute after it should have ended."""
        with self.running(mode, port, target, number, seconds) as process:
            try:
                out, err = process.communicate(timeout=seconds + 60)
            except subprocess.TimeoutExpired:
                raise LoadError("the traffic came to a standstill") from None
        if process.returncode:
            raise LoadError(err.strip())
        return json.loads(out)

    @contextmanager
    def running(
        self, mode: str, port: int, target: int, number: int, seconds: float
    ) -> Iterator[subprocess.Popen[str]]:
        """Run one mode of load.c beside a `with` block, at whose end it is stopped."""
        with self._started("load", mode, port, target, number, round(seconds * 1000)) as process:
            yield process

    @contextmanager
    def holding(self, port: int, target: int, count: int) -> Iterator[None]:
        """Hold open connections for the length of a `with` block. Raises LoadError."""
        with self.running("idle", port, target, count, 0) as process:
            _answer(process)
            yield

    @contextmanager
    def _started(self, program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        # A session of its own: Ctrl-C is for us alone, who end everything in order.
        with ExitStack() as stack:
            process = subprocess.Popen(
                [str(self._folder / program), *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.callback(_end, process)
            yield process


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    if not line:
        raise LoadError(process.stderr.read().strip())
    return json.loads(line)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    process.wait(timeout=10)
