"""Fixtures of the engine's tests: real SSH servers, plain TCP servers to forward to, and a rig that runs forwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack

import pytest
import uvloop

from tests.engine.rig import Destinations, Rig
from tests.sshd import Sshd, running

LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
# Sockets and transports differ between the loops; rules and words do not.
ON_BOTH_LOOPS = {
    "test_binding",
    "test_carrying",
    "test_listeners",
    "test_relay",
    "test_session",
    "test_sockets",
    "test_socks_front",
    "test_supervisor",
}


def pytest_asyncio_loop_factories(config, item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return LOOPS if item.path.stem in ON_BOTH_LOOPS else {"asyncio": LOOPS["asyncio"]}


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    """An SSH server shared by the tests of a process: whoever stops it or cuts its sessions takes one of their own."""
    with running() as server:
        yield server


@pytest.fixture
def own_sshd() -> Iterator[Callable[..., Sshd]]:
    """Start SSH servers of the test's own, with further lines of sshd_config; see tests.sshd.running."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(running(*args, **kwargs))


@pytest.fixture
async def destinations() -> AsyncIterator[Destinations]:
    """TCP servers on this machine, closed with all their connections after the test."""
    servers = Destinations()
    yield servers
    await servers.close()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A supervisor and what it reported."""
    running_rig = Rig()
    yield running_rig
    await running_rig.close()
