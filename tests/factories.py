"""Rows for tests, with whatever the test does not care about filled in."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone

from forwards.models import Forward, ForwardStatus, Server, ServerStatus, Worker

_number = itertools.count(1)


def make_server(**fields: Any) -> Server:
    """Store a server; unless named, each gets a name of its own."""
    fields.setdefault("name", f"Server {next(_number)}")
    return Server.objects.create(**{"host": "ssh.example", "user": "me", **fields})


def make_forward(**fields: Any) -> Forward:
    """Store a local forward to a server's MySQL."""
    server = fields.pop("server", None) or make_server()
    given = {"name": "MySQL", "local_port": 3307, "remote_port": 3306, **fields}
    return Forward.objects.create(server=server, **given)


def set_status(forward: Forward, state: str, **fields: Any) -> ForwardStatus:
    """Report a state of a forward as its worker would."""
    values = {"state": state, "generation": forward.generation, "since": timezone.now(), **fields}
    return ForwardStatus.objects.update_or_create(forward=forward, defaults=values)[0]


def present_key(server: Server, fingerprint: str = "SHA256:abc", **fields: Any) -> ServerStatus:
    """Report that a server showed a host key nobody trusts yet."""
    values = {
        "state": "failed",
        "reason": "host_key_unknown",
        "presented_key": f"ssh-ed25519 AAAA{fingerprint[-3:]}",
        "presented_fingerprint": fingerprint,
        "presented_by": server.address,
        **fields,
    }
    return ServerStatus.objects.update_or_create(server=server, defaults=values)[0]


def beat(age: float = 0, name: str | None = None) -> Worker:
    """Let the worker give a sign of life, `age` seconds ago."""
    now = timezone.now()
    values = {"hostname": "here", "pid": 1, "started_at": now, "heartbeat_at": now - timedelta(seconds=age)}
    return Worker.objects.update_or_create(name=name or settings.WORKER_NAME, defaults=values)[0]
