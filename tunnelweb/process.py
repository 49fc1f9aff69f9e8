"""What a process that runs tunnels takes for itself: the data directory, and enough open files."""

from __future__ import annotations

import fcntl
import os
import resource
from pathlib import Path
from typing import IO

OPEN_FILES_WANTED = 65536


class DirectoryTaken(Exception):
    """Another process runs tunnels with this data directory."""


def take_lock(directory: Path) -> IO[str]:
    """Return a lock on the data directory, held until it is closed or the process ends.

    Two workers on one directory would open the same ports. Raises DirectoryTaken, with a sentence.
    """
    file = (directory / "worker.lock").open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        with file:
            file.seek(0)
            holder = file.read().strip() or "unknown"
        raise DirectoryTaken(
            f"Tunnelweb already runs with the data directory {directory} (process {holder}). Stop it first, or give "
            "this one another directory by TUNNELWEB_DATA."
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def raise_open_files() -> None:
    """Let this process open as many files as it may, up to OPEN_FILES_WANTED.

    Each client takes a socket, and the usual soft limit of 1024 is soon reached.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
