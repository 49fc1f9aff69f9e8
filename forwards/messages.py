"""Names and types of everything that goes over the channel layer, and the functions that send it.

A message is only a wake-up: what it speaks of is in the database. One that is lost costs seconds, never truth,
so a channel layer that fails is logged and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull
from channels.layers import get_channel_layer

logger = logging.getLogger(__name__)

DASHBOARD_GROUP = "dashboard"

WAKE = "worker.wake"
FORWARDS_CHANGED = "forwards.changed"
FORWARDS_LISTED = "forwards.listed"
SERVERS_CHANGED = "servers.changed"
COUNTERS = "forwards.counters"


def worker_channel(name: str) -> str:
    """Return the channel that wakes the worker called `name`; each worker has one of its own."""
    return f"worker.{name}"


async def _send(sending: Callable[[Any], Awaitable[None]]) -> None:
    try:
        await sending(get_channel_layer())
    except ChannelFull:
        logger.debug("A channel is full of wake-ups; one more would change nothing.")
    except (OSError, ConnectionError) as error:
        logger.warning("The channel layer cannot be reached: %s", error)


async def wake_worker(name: str) -> None:
    """Ask the worker to look at what is wanted now."""
    await _send(lambda layer: layer.send(worker_channel(name), {"type": WAKE}))


async def announce(kind: str, **content: Any) -> None:
    """Send one message of type `kind` to every open dashboard."""
    await _send(lambda layer: layer.group_send(DASHBOARD_GROUP, {"type": kind, **content}))


async def announce_forwards(ids: Iterable[int]) -> None:
    """Tell every open dashboard that the rows of these forwards must be drawn anew."""
    await announce(FORWARDS_CHANGED, ids=sorted(ids))


async def announce_servers(ids: Iterable[int]) -> None:
    """Tell every open dashboard that these servers, or what is known of them, changed."""
    await announce(SERVERS_CHANGED, ids=sorted(ids))


def wake_worker_now(name: str) -> None:
    """`wake_worker` from synchronous code."""
    async_to_sync(wake_worker)(name)


def announce_now(kind: str, **content: Any) -> None:
    """`announce` from synchronous code."""
    async_to_sync(announce)(kind, **content)
