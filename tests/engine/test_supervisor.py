"""Forwards of every kind, run as the worker runs them, over a real SSH server."""

from __future__ import annotations

import hashlib
import random

import pytest

from forwards.engine.specs import Kind
from forwards.engine.states import State
from tests.engine.rig import ask, client, digest, dynamic, echo, eventually, local, remote, server_spec, source

DATA = random.Random(1).randbytes(20 * 1024 * 1024)
SHA256 = hashlib.sha256(DATA).hexdigest()


async def test_twenty_megabytes_come_down_a_local_forward_whole(rig, sshd, destinations) -> None:
    service = await destinations.serve(source(DATA))
    port = await rig.open(server_spec(sshd), local(service.port))

    assert hashlib.sha256(await ask(port, b"")).hexdigest() == SHA256
    await eventually(lambda: rig.counters().active == 0)
    counters = rig.counters()
    assert (counters.total, counters.bytes_in, counters.bytes_out) == (1, len(DATA), 0)
