import asyncio
import logging

import pytest
from channels.exceptions import ChannelFull
from channels.layers import channel_layers

from forwards import messages


class BrokenLayer:
    """A channel layer that raises at everything, as one whose Redis is gone does."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def send(self, channel: str, message: dict) -> None:
        raise self.error

    async def group_send(self, group: str, message: dict) -> None:
        raise self.error


@pytest.fixture
def layer(channel_layer):
    return channel_layer


@pytest.fixture
def broken_layer(channel_layer):
    channel_layers.backends["default"] = broken = BrokenLayer(ConnectionRefusedError("no Redis here"))
    return broken


async def received(layer, channel: str) -> dict:
    return await asyncio.wait_for(layer.receive(channel), 1)


async def test_waking_a_worker_reaches_the_channel_of_that_worker_alone(layer) -> None:
    await messages.wake_worker("laptop")

    assert await received(layer, messages.worker_channel("laptop")) == {"type": messages.WAKE}
    assert messages.worker_channel("laptop") != messages.worker_channel("jump")
    assert not layer.channels


async def test_an_announcement_reaches_every_open_dashboard(layer) -> None:
    for channel in ("one", "two"):
        await layer.group_add(messages.DASHBOARD_GROUP, channel)

    await messages.announce_forwards({3, 1})
    await messages.announce_servers([2])

    for channel in ("one", "two"):
        assert await received(layer, channel) == {"type": messages.FORWARDS_CHANGED, "ids": [1, 3]}
        assert await received(layer, channel) == {"type": messages.SERVERS_CHANGED, "ids": [2]}


async def test_a_dashboard_that_does_not_listen_holds_up_nobody(layer) -> None:
    await layer.group_add(messages.DASHBOARD_GROUP, "asleep")
    await layer.group_add(messages.DASHBOARD_GROUP, "awake")

    for number in range(300):
        await messages.announce(messages.COUNTERS, rows=[{"id": number}])
        assert (await received(layer, "awake"))["rows"] == [{"id": number}]


async def test_a_worker_that_does_not_listen_is_woken_without_an_error(layer) -> None:
    for _ in range(300):
        await messages.wake_worker("asleep")


def test_synchronous_code_can_send_too(layer) -> None:
    messages.wake_worker_now("laptop")
    messages.announce_now(messages.FORWARDS_LISTED)

    assert asyncio.run(received(layer, messages.worker_channel("laptop"))) == {"type": messages.WAKE}


@pytest.mark.parametrize("error", [ConnectionRefusedError("gone"), TimeoutError("slow"), ChannelFull("full")])
async def test_a_channel_layer_that_fails_costs_a_log_line_and_nothing_else(broken_layer, caplog, error) -> None:
    broken_layer.error = error
    with caplog.at_level(logging.DEBUG, "forwards.messages"):
        await messages.wake_worker("laptop")
        await messages.announce_forwards([1])

    assert len(caplog.records) == 2


async def test_a_mistake_of_ours_is_not_hidden(broken_layer) -> None:
    broken_layer.error = ValueError("bad group name")

    with pytest.raises(ValueError, match="bad group name"):
        await messages.announce(messages.FORWARDS_LISTED)


def test_names_are_such_as_channels_takes(layer) -> None:
    layer.require_valid_group_name(messages.DASHBOARD_GROUP)
    layer.require_valid_channel_name(messages.worker_channel("default"))
