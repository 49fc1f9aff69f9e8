"""A session ends within its time, whatever the server does."""

from __future__ import annotations

import asyncio
import time

import pytest

from forwards.engine import session as module
from forwards.engine.connection import open_session
from forwards.engine.session import Session
from forwards.engine.tasks import Tasks
from forwards.engine.wire import Wire
from tests.engine.rig import eventually, server_spec

paths = pytest.mark.parametrize("fast", ["1", "0"], ids=["fast", "plain"])


async def opened(monkeypatch, sshd, fast: str) -> Session:
    monkeypatch.setenv("TUNNELWEB_FAST_PATH", fast)
    return await open_session(server_spec(sshd), None, Tasks())


@paths
async def test_a_session_disconnects_in_order(monkeypatch, own_sshd, fast) -> None:
    sshd = own_sshd()
    session = await opened(monkeypatch, sshd, fast)
    await session.close()

    assert await session.lost is None
    await eventually(lambda: not sshd.connections())


@paths
async def test_closing_takes_no_longer_than_it_may_when_the_server_stands_still(monkeypatch, own_sshd, fast) -> None:
    sshd = own_sshd()
    session = await opened(monkeypatch, sshd, fast)
    sshd.freeze()
    began = time.monotonic()
    await session.close()
    assert time.monotonic() - began < module.CLOSE_TIMEOUT + 1

    assert session.lost.done()


@paths
async def test_closing_twice_is_closing_once(monkeypatch, sshd, fast) -> None:
    session = await opened(monkeypatch, sshd, fast)
    await session.close()
    await session.close()

    assert session.lost.done()


async def test_a_connection_that_does_not_close_is_dropped(monkeypatch) -> None:
    class Stubborn:
        aborted = False

        def close(self) -> None:
            pass

        async def wait_closed(self) -> None:
            await asyncio.Event().wait()

        def abort(self) -> None:
            self.aborted = True

    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.01)
    conn = Stubborn()
    await Session(conn, asyncio.get_running_loop().create_future()).close()

    assert conn.aborted


async def test_a_session_without_a_wire_of_its_own_sends_by_asyncssh() -> None:
    conn = object()
    session = Session(conn, asyncio.get_running_loop().create_future())

    assert type(session.wire) is Wire
    assert session.wire.conn is conn
