"""What processes cost, and which ports are open, as Linux tells it under /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
LISTENING = "0A"
# Fields of /proc/<pid>/stat after the name: user and system time.
USER, SYSTEM = 11, 12


def tree(roots: Iterable[int]) -> list[int]:
    """Return the processes and all that descend from them."""
    found = list(roots)
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            # A process may end while it is being looked at.
            with suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


def cpu(roots: Iterable[int]) -> dict[int, float]:
    """Return the CPU seconds that each process of these trees has used."""
    used = {}
    for pid in tree(roots):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used[pid] = (int(fields[USER]) + int(fields[SYSTEM])) / TICKS_PER_SECOND
    return used


def spent(before: dict[int, float], after: dict[int, float]) -> float:
    """Return the CPU seconds used between two looks; a process that ended in between is left out."""
    return sum(seconds - before.get(pid, 0) for pid, seconds in after.items())


def pss(roots: Iterable[int]) -> int:
    """Return the proportional set size of these trees in KiB: pages that several processes share count once."""
    total = 0
    for pid in tree(roots):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total


def listening() -> set[int]:
    """Return every TCP port that is listened on."""
    ports = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING:
                    ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports
