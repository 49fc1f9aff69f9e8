import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from forwards import consumers, messages, services
from forwards.models import Forward, Worker
from tests.factories import beat, make_forward, make_server, set_status
from tunnelweb.asgi import application

pytestmark = pytest.mark.django_db(transaction=True)

# Some looks at the pace of `quick`, and what a slow machine needs on top.
A_LOOK = 3
CROSS_SITE = b"http://localhost:3000"
in_db = database_sync_to_async


class Page(WebsocketCommunicator):
    """A browser page with its websocket."""

    async def html_with(self, *parts: str, within: float = 1) -> str:
        """Return the first message that holds all `parts`; what comes before it is thrown away."""
        async with asyncio.timeout(within):
            while True:
                html = await self.receive_from(within)
                if all(part in html for part in parts):
                    return html

    async def closed_with(self, within: float) -> int:
        """Return the code the server closes the socket with."""
        async with asyncio.timeout(within):
            while True:
                output = await self.receive_output(within)
                if output["type"] == "websocket.close":
                    return output["code"]

    async def settle(self) -> None:
        """Throw away what is sent upon connecting."""
        while not await self.receive_nothing(0.3):
            await self.receive_output()


def sign_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def page(
    client: Client | None, *, origin: bytes | None = b"http://localhost:8000", path: str = "/ws/dashboard/"
) -> Page:
    headers = [(b"host", b"localhost:8000")]
    if origin is not None:
        headers.append((b"origin", origin))
    if client is not None:
        key = client.cookies[settings.SESSION_COOKIE_NAME].value
        headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={key}".encode()))
    return Page(application, path, headers=headers)


@asynccontextmanager
async def opened(client: Client) -> AsyncIterator[Page]:
    it = page(client)
    assert (await it.connect())[0]
    try:
        yield it
    finally:
        await it.disconnect()


@pytest.fixture
def user() -> User:
    return User.objects.create_user("me")


@pytest.fixture
def client(user) -> Client:
    return sign_in(user)


@pytest.fixture
def forward() -> Forward:
    beat()
    return make_forward()


@pytest.fixture
def quick(monkeypatch) -> None:
    """Let pages look around more often than anybody has to wait for in a test."""
    monkeypatch.setattr(consumers, "LOOK_EVERY", 0.1)


def test_a_page_looks_around_often_enough() -> None:
    assert consumers.LOOK_EVERY <= 2
    assert consumers.LOOK_EVERY * consumers.COMPARE_EVERY <= 10
    assert consumers.DRAW_PAUSE <= 0.1


# Who may connect


async def test_a_page_that_connects_is_told_to_fetch_its_list_anew(client) -> None:
    async with opened(client) as it:
        await it.html_with('data-refresh="forwards"', 'data-refresh="servers"')


async def test_nobody_connects_without_signing_in(client) -> None:
    assert await page(None).connect() == (False, 1000)


async def test_nobody_connects_with_a_made_up_session(client) -> None:
    client.cookies[settings.SESSION_COOKIE_NAME] = "x" * 32

    assert await page(client).connect() == (False, 1000)


async def test_nobody_connects_after_signing_out(client) -> None:
    await in_db(Session.objects.all().delete)()

    assert await page(client).connect() == (False, 1000)


async def test_a_deactivated_user_does_not_connect(client, user) -> None:
    await in_db(User.objects.update)(is_active=False)

    assert await page(client).connect() == (False, 1000)


@pytest.mark.parametrize("origin", [None, b"null", CROSS_SITE, b"https://localhost:8000", b"http://evil.example"])
async def test_another_origin_does_not_connect_even_with_our_cookie(client, origin) -> None:
    assert await page(client, origin=origin).connect() == (False, 1000)


@pytest.mark.parametrize("path", ["/", "/ws/", "/ws/dashboard", "/ws/dashboard/x", "/ws/dashboard/\ud800"])
async def test_there_is_no_other_websocket(client, path) -> None:
    assert await page(client, path=path).connect() == (False, 1000)


# What it draws


async def test_a_changed_status_is_drawn_within_half_a_second(client, forward) -> None:
    async with opened(client) as it:
        await it.settle()
        await in_db(Forward.objects.update)(enabled=True)
        await in_db(set_status)(forward, "listening")
        began = time.monotonic()
        await messages.announce_forwards([forward.pk])
        await it.html_with(f'data-forward="{forward.pk}"', 'data-state="listening"')

    assert time.monotonic() - began < 0.5


async def test_a_press_of_start_reaches_every_open_page(client, forward) -> None:
    async with opened(client) as one, opened(client) as two:
        await one.settle()
        await two.settle()
        await sync_to_async(services.start)([forward])

        for it in (one, two):
            await it.html_with(f'data-forward="{forward.pk}"', 'data-state="starting"')


async def test_counters_are_sent_as_they_come(client, forward) -> None:
    async with opened(client) as it:
        await it.settle()
        await messages.announce(
            messages.COUNTERS, rows=[{"id": forward.pk, "connections": 7, "bytes_in": 1, "bytes_out": 2}]
        )

        assert f"forward-{forward.pk}-connections" in await it.html_with(">7<")


async def test_a_changed_server_is_drawn(client) -> None:
    server = await in_db(make_server)(name="My VPS")
    async with opened(client) as it:
        await it.settle()
        await messages.announce_servers([server.pk])

        await it.html_with("My VPS")


async def test_a_new_row_makes_the_page_fetch_its_list(client, forward) -> None:
    async with opened(client) as it:
        await it.settle()
        new = await in_db(make_server)()
        await messages.announce_servers([new.pk])

        await it.html_with('data-refresh="servers"')


async def test_a_row_that_was_deleted_meanwhile_makes_the_page_fetch_its_list(client, forward) -> None:
    async with opened(client) as it:
        await it.settle()
        await in_db(Forward.objects.all().delete)()
        await messages.announce_forwards([forward.pk, 10**9])
        await messages.announce(
            messages.COUNTERS, rows=[{"id": 10**9, "connections": 1, "bytes_in": 1, "bytes_out": 2}]
        )

        assert "data-forward" not in await it.html_with('data-refresh="forwards"')
        await messages.announce_servers([10**9])
        await it.html_with('data-refresh="servers"')


async def test_a_burst_of_changes_draws_a_row_a_few_times_and_ends_with_the_truth(client, forward) -> None:
    drawn = []
    async with opened(client) as it:
        await it.settle()
        for number in range(60):
            await in_db(Forward.objects.update)(name=f"Name {number}.")
            await messages.announce_forwards([forward.pk])
        began = time.monotonic()
        while not drawn or "Name 59." not in drawn[-1]:
            drawn.append(await it.receive_from())
            assert time.monotonic() - began < 1

    assert len(drawn) < 30


async def test_many_rows_at_once_are_one_fetch_of_the_list(client) -> None:
    def many() -> list[int]:
        server = make_server()
        return [make_forward(server=server, local_port=2000 + n).pk for n in range(consumers.MOST_ROWS + 1)]

    ids = await in_db(many)()
    async with opened(client) as it:
        await it.settle()
        await messages.announce_forwards(ids)

        assert "data-forward" not in await it.html_with('data-refresh="forwards"')


async def test_counters_older_than_a_row_are_not_drawn_over_it(client, forward) -> None:
    async with opened(client) as it:
        await it.settle()
        # The first message is drawn at once, those that follow within the pause together.
        await messages.announce_forwards([forward.pk])
        await it.html_with("data-forward")
        await messages.announce(
            messages.COUNTERS, rows=[{"id": forward.pk, "connections": 7, "bytes_in": 1, "bytes_out": 2}]
        )
        await messages.announce_forwards([forward.pk])

        assert ">7<" not in await it.html_with("data-forward")


async def test_what_users_typed_is_drawn_escaped(client, forward) -> None:
    async with opened(client) as it:
        await it.settle()
        await in_db(Forward.objects.update)(name="<img src=x onerror=alert(1)>")
        await messages.announce_forwards([forward.pk])

        assert "<img" not in await it.html_with("data-forward")


async def test_drawing_rows_takes_the_same_few_queries_however_many(django_assert_max_num_queries) -> None:
    def rows() -> consumers.Pending:
        beat()
        server = make_server()
        pending = consumers.Pending()
        for number in range(10):
            forward = make_forward(server=server, local_port=2000 + number, enabled=True)
            set_status(forward, "listening")
            pending.rows["forwards"].add(forward.pk)
            pending.rows["servers"].add(make_server(proxy_jump=server).pk)
        return pending

    def drawn() -> str:
        pending = rows()
        with django_assert_max_num_queries(4):
            return consumers.draw(pending)

    assert (await in_db(drawn)()).count('data-state="listening"') == 10


# What it notices by itself


async def test_a_worker_that_dies_or_comes_back_has_the_lists_fetched_anew(client, forward, quick) -> None:
    async with opened(client) as it:
        await it.settle()
        await in_db(Worker.objects.update)(heartbeat_at=timezone.now() - timedelta(minutes=1))
        await it.html_with('data-refresh="forwards"', within=A_LOOK)
        await in_db(beat)()
        await it.html_with('data-refresh="forwards"', within=A_LOOK)


async def test_signing_out_in_another_tab_closes_the_socket(client, quick) -> None:
    async with opened(client) as it:
        await sync_to_async(client.logout)()

        assert await it.closed_with(A_LOOK) == consumers.SIGNED_OUT


async def test_deactivating_a_user_closes_their_socket_and_no_other(client, quick) -> None:
    other = await in_db(User.objects.create_user)("other")
    async with opened(client) as mine, opened(await sync_to_async(sign_in)(other)) as others:
        await mine.settle()
        other.is_active = False
        await in_db(other.save)()

        assert await others.closed_with(A_LOOK) == consumers.SIGNED_OUT
        assert await mine.receive_nothing(0.1)


async def test_a_changed_password_closes_the_sockets_of_older_sessions(client, user, quick) -> None:
    async with opened(client) as it:
        user.set_password("another")
        await in_db(user.save)()

        assert await it.closed_with(A_LOOK) == consumers.SIGNED_OUT


async def test_a_session_that_ran_out_closes_its_socket(client, quick) -> None:
    async with opened(client) as it:
        await in_db(Session.objects.update)(expire_date=timezone.now() - timedelta(seconds=1))

        assert await it.closed_with(A_LOOK) == consumers.SIGNED_OUT


async def test_a_page_the_channel_layer_forgot_hears_again_after_a_look(client, forward, channel_layer, quick) -> None:
    async with opened(client) as it:
        await it.settle()
        channel_layer.groups.clear()

        await asyncio.sleep(1)
        await messages.announce_forwards([forward.pk])
        await it.html_with(f'data-forward="{forward.pk}"')


@pytest.mark.parametrize(
    ("change", "shows"),
    [
        (lambda forward: Forward.objects.update(updated_at=timezone.now()), "data-forward"),
        (lambda forward: set_status(forward, "failed"), "data-forward"),
        (lambda forward: Forward.objects.all().delete(), 'data-refresh="forwards"'),
        (lambda forward: make_forward(server=forward.server), 'data-refresh="forwards"'),
    ],
    ids=["row", "status", "deleted", "added"],
)
async def test_a_change_whose_message_was_lost_shows_all_the_same(
    client, forward, quick, change: Callable, shows
) -> None:
    async with opened(client) as it:
        await it.settle()
        await in_db(change)(forward)

        await it.html_with(shows, within=A_LOOK)


async def test_while_nothing_changes_nothing_is_sent(client, forward, quick) -> None:
    async with opened(client) as it:
        await it.settle()

        assert await it.receive_nothing(1)


# What must be harmless


@pytest.mark.parametrize(
    "sent",
    [
        {"text_data": "x" * 2_000_000},
        {"bytes_data": b"\0" * 2_000_000},
        {"text_data": "[" * 100_000},
        {"text_data": json.dumps({"type": "forwards.changed", "ids": [1]})},
        {"text_data": json.dumps({"type": "websocket.disconnect"})},
        {"text_data": "\0"},
    ],
    ids=["2MB", "binary", "deep", "message", "disconnect", "nul"],
)
async def test_whatever_a_page_sends_is_ignored(client, forward, sent) -> None:
    async with opened(client) as it:
        await it.settle()
        await it.send_to(**sent)
        assert await it.receive_nothing(0.2)

        await messages.announce_forwards([forward.pk])
        await it.html_with("data-forward")


async def test_a_flood_from_one_page_does_not_slow_another(client, forward) -> None:
    async with opened(client) as flooding, opened(client) as it:
        await flooding.settle()
        await it.settle()
        for _ in range(10_000):
            await flooding.send_to(text_data='{"HEADERS": {}}')
        began = time.monotonic()
        await messages.announce_forwards([forward.pk])
        await it.html_with("data-forward")

    assert time.monotonic() - began < 1


async def test_when_drawing_fails_the_socket_closes_so_that_the_page_opens_another(client, forward, caplog) -> None:
    async with opened(client) as it:
        await it.settle()
        await in_db(Forward.objects.update)(enabled=True)
        await in_db(set_status)(forward, "a state nobody knows")
        with caplog.at_level(logging.ERROR, "forwards.consumers"):
            await messages.announce_forwards([forward.pk])

            assert await it.closed_with(1) == consumers.FAILED
    assert "websocket of a dashboard failed" in caplog.text


async def test_a_closed_page_leaves_no_task_and_no_membership(client, channel_layer) -> None:
    before = asyncio.all_tasks()
    async with opened(client) as it:
        await it.settle()
        assert channel_layer.groups[messages.DASHBOARD_GROUP]

    assert asyncio.all_tasks() == before
    assert not channel_layer.groups


async def test_a_server_that_shuts_down_leaves_no_task_either(client, channel_layer) -> None:
    before = asyncio.all_tasks()
    it = page(client)
    await it.connect()
    it.future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await it.future

    assert asyncio.all_tasks() == before
    assert not channel_layer.groups
