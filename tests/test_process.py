import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tunnelweb import process


def test_one_process_at_a_time_holds_a_data_directory(tmp_path: Path) -> None:
    with process.take_lock(tmp_path), pytest.raises(process.DirectoryTaken, match=r"process \d+"):
        process.take_lock(tmp_path)
    process.take_lock(tmp_path).close()


def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from tunnelweb import process;"
        f"lock = process.take_lock(pathlib.Path({str(tmp_path)!r})); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(process.DirectoryTaken, match=str(holder.pid)):
            process.take_lock(tmp_path)
        holder.kill()
    process.take_lock(tmp_path).close()


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        process.raise_open_files()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == (process.OPEN_FILES_WANTED if hard == -1 else min(hard, process.OPEN_FILES_WANTED))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
