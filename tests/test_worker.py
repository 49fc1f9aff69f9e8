"""The worker with a real database, channel layer, engine and sshd; only the process around it is missing."""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import connection

from forwards import messages, services
from forwards.models import ConnectionTest, Forward, ForwardStatus, HostKey, Server, ServerStatus
from forwards.models import Worker as WorkerRow
from forwards.worker import Worker
from tests import sshd

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def server() -> Iterator[sshd.Sshd]:
    with sshd.running() as running:
        yield running


def make_rows(server: sshd.Sshd, **fields: Any) -> Forward:
    """Store a server that is trusted, and a local forward to its own SSH port."""
    row = Server.objects.create(
        name="My VPS", host="127.0.0.1", port=server.port, user=server.user, auth="key_file", key_path=str(server.key)
    )
    HostKey.objects.create(server=row, algorithm="ssh-ed25519", public_key=server.public_host_key, fingerprint="x")
    values = {"name": "SSH", "local_port": 0, "remote_port": server.port, "server": row, **fields}
    return Forward.objects.create(**values)


@asynccontextmanager
async def working() -> AsyncIterator[Worker]:
    worker = Worker(settings.WORKER_NAME)
    task = asyncio.get_running_loop().create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await asyncio.wait_for(task, 15)


async def until(found: Callable[[], Any], seconds: float = 15) -> Any:
    """Wait until a look into the database finds something true; rows written in another thread cannot be awaited."""
    deadline = time.monotonic() + seconds
    while True:
        if value := await sync_to_async(found)():
            return value
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.05)


def in_state(state: str) -> Callable[[], ForwardStatus | None]:
    return lambda: ForwardStatus.objects.filter(state=state).first()


async def greeting(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    line = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    await writer.wait_closed()
    return line


async def test_a_forward_that_is_switched_on_carries_and_one_switched_off_ends(server: sshd.Sshd) -> None:
    forward = await sync_to_async(make_rows)(server)
    async with working():
        await sync_to_async(services.start)([forward])
        status = await until(in_state("listening"))
        assert (await greeting(status.allocated_port)).startswith(b"SSH-2.0-OpenSSH")
        await sync_to_async(services.stop)([forward])
        stopped = await until(in_state("stopped"))
        assert stopped.bytes_in > 0
        with pytest.raises(ConnectionRefusedError):
            await greeting(status.allocated_port)


async def test_rows_written_past_every_service_take_effect(server: sshd.Sshd) -> None:
    """As a bulk update, the admin or a shell may do; here by another connection to the database file."""
    await sync_to_async(make_rows)(server)
    async with working():
        await until(lambda: WorkerRow.is_alive())

        def write() -> None:
            with sqlite3.connect(connection.settings_dict["NAME"], timeout=20) as database:
                database.execute("UPDATE forwards_forward SET enabled = 1")
            database.close()

        await asyncio.to_thread(write)
        await until(in_state("listening"))


async def test_dashboards_hear_of_states_and_once_a_second_of_what_was_counted(server: sshd.Sshd) -> None:
    forward = await sync_to_async(make_rows)(server, enabled=True)
    layer = get_channel_layer()
    await layer.group_add(messages.DASHBOARD_GROUP, "page")
    async with working():
        status = await until(in_state("listening"))
        await greeting(status.allocated_port)
        heard: dict[str, Any] = {}
        async with asyncio.timeout(15):
            while messages.COUNTERS not in heard or heard[messages.COUNTERS]["rows"][0]["bytes_in"] == 0:
                message = await layer.receive("page")
                heard[message["type"]] = message
        assert heard[messages.FORWARDS_CHANGED]["ids"] == [forward.pk]
        assert heard[messages.SERVERS_CHANGED]["ids"] == [forward.server_id]
        assert heard[messages.COUNTERS]["rows"][0]["id"] == forward.pk


async def test_a_test_of_a_connection_is_answered_and_shows_an_unknown_key(server: sshd.Sshd) -> None:
    forward = await sync_to_async(make_rows)(server)
    async with working():
        await sync_to_async(services.request_test)(forward.server)
        test = await until(lambda: ConnectionTest.objects.filter(finished_at__isnull=False).first())
        assert (test.reason, test.milliseconds > 0) == ("", True)

        await HostKey.objects.all().adelete()
        await sync_to_async(services.request_test)(forward.server)
        test = await until(lambda: ConnectionTest.objects.filter(reason="hostkey_unknown").first())
        status = await ServerStatus.objects.aget()
        assert status.presented_key == server.public_host_key
        assert status.presented_fingerprint == test.params["fingerprint"]


async def test_trusting_a_key_brings_a_stopped_forward_up(server: sshd.Sshd) -> None:
    forward = await sync_to_async(make_rows)(server, enabled=True)
    await HostKey.objects.all().adelete()
    async with working():
        failed = await until(in_state("failed"))
        assert failed.reason == "hostkey_unknown"
        server_row = await Server.objects.aget(pk=forward.server_id)
        await sync_to_async(services.trust_host_key)(server_row, failed.params["fingerprint"], None, replace=False)
        await until(in_state("listening"))


async def test_ending_writes_that_everything_is_stopped_and_the_worker_gone(server: sshd.Sshd) -> None:
    await sync_to_async(make_rows)(server, enabled=True)
    async with working():
        await until(in_state("listening"))
    assert await sync_to_async(WorkerRow.is_alive)() is False
    assert (await ForwardStatus.objects.aget()).state == "stopped"
    assert (await Forward.objects.aget()).enabled


async def test_a_locked_database_stops_no_tunnel(server: sshd.Sshd, caplog: pytest.LogCaptureFixture) -> None:
    await sync_to_async(make_rows)(server, enabled=True)
    async with working():
        port = (await until(in_state("listening"))).allocated_port
        lock = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False)
        lock.execute("BEGIN EXCLUSIVE")
        try:
            await asyncio.sleep(1)
            assert (await greeting(port)).startswith(b"SSH-2.0-OpenSSH")
        finally:
            lock.execute("ROLLBACK")
            lock.close()
        forward = await Forward.objects.aget()
        await sync_to_async(services.stop)([forward])
        await until(in_state("stopped"))


async def test_it_leaves_no_file_open_and_no_task_behind(server: sshd.Sshd) -> None:
    await sync_to_async(make_rows)(server, enabled=True)
    async with working():
        await until(in_state("listening"))
    files = len(os.listdir("/proc/self/fd"))
    async with working():
        await until(in_state("listening"))
    assert len(os.listdir("/proc/self/fd")) <= files
    assert {task.get_name() for task in asyncio.all_tasks()} - {asyncio.current_task().get_name()} == set()  # type: ignore[union-attr]
