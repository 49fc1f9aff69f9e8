"""Fixtures every test may use; those of one kind live in the conftest of their folder."""

from pathlib import Path

import pytest
from channels.layers import BaseChannelLayer, channel_layers

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def channel_layer() -> BaseChannelLayer:
    """A channel layer of the test's own: the queues of an in-memory one belong to the loop that used them first."""
    channel_layers.backends = {}
    return channel_layers["default"]
