"""What a row shows: a pure function of what is wanted, what is, and whether the worker lives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.core.exceptions import ObjectDoesNotExist
from django.utils.translation import gettext as _

from forwards.engine.specs import join_host_port
from forwards.engine.states import Public
from forwards.models import Forward, ForwardKind, ForwardState, ForwardStatus
from forwards.reasons import sentence

UNKNOWN = "unknown"

_LIGHTS = {
    ForwardState.STOPPED: "secondary",
    ForwardState.STARTING: "azure",
    ForwardState.LISTENING: "green",
    ForwardState.RETRYING: "orange",
    ForwardState.FAILED: "red",
    ForwardState.STOPPING: "secondary",
}


@dataclass(frozen=True)
class Shown:
    """One row's status, ready for the template. `state` is DESIGN's state name, or "unknown"."""

    state: str
    word: str
    light: str
    moving: bool = False
    problem: str = ""
    problem_code: str = ""
    problem_params: dict[str, str | int] | None = None
    attempt: int = 0
    retry_at: datetime | None = None
    since: datetime | None = None
    note: str = ""
    public: str = ""
    connections: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    @property
    def can_start(self) -> bool:
        return self.state in (ForwardState.STOPPED, ForwardState.FAILED)

    @property
    def can_stop(self) -> bool:
        return self.state not in (ForwardState.STOPPED, ForwardState.STOPPING)


def _status_of(forward: Forward) -> ForwardStatus | None:
    try:
        return forward.status
    except ObjectDoesNotExist:
        return None


def shown(forward: Forward, *, worker_alive: bool) -> Shown:
    """Return what the row of `forward` shows now."""
    status = _status_of(forward)
    if not worker_alive:
        if not forward.enabled:
            return _plain(ForwardState.STOPPED, status)
        return Shown(
            state=UNKNOWN,
            word=_("Unknown"),
            light="yellow",
            problem=_("The worker is not running, so nothing is known of this forward. Start “manage.py serve”."),
            problem_code="worker_gone",
        )
    state = ForwardState(status.state) if status else ForwardState.STOPPED
    if not forward.enabled:
        running = state not in (ForwardState.STOPPED, ForwardState.FAILED)
        return _plain(ForwardState.STOPPING if running else ForwardState.STOPPED, status)
    if status is None or state in (ForwardState.STOPPED, ForwardState.STOPPING):
        return _plain(ForwardState.STARTING)
    if status.generation != forward.generation:
        return _plain(ForwardState.STARTING)
    problem = sentence(status.reason, status.params) if status.reason else _not_public(forward, status)
    warned = state is ForwardState.LISTENING and bool(problem)
    return Shown(
        state=state.value,
        word=str(state.label),
        light="yellow" if warned else _LIGHTS[state],
        moving=state in (ForwardState.STARTING, ForwardState.RETRYING),
        problem=problem,
        problem_code=status.reason,
        problem_params=status.params,
        attempt=status.attempt,
        retry_at=status.retry_at,
        since=status.since,
        note=_public_note(forward, status),
        public=status.public,
        connections=status.connections,
        bytes_in=status.bytes_in,
        bytes_out=status.bytes_out,
    )


def _plain(state: ForwardState, counted: ForwardStatus | None = None) -> Shown:
    return Shown(
        state=state.value,
        word=str(state.label),
        light=_LIGHTS[state],
        moving=state in (ForwardState.STARTING, ForwardState.STOPPING),
        bytes_in=counted.bytes_in if counted else 0,
        bytes_out=counted.bytes_out if counted else 0,
    )


def _not_public(forward: Forward, status: ForwardStatus) -> str:
    if status.public != Public.NO:
        return ""
    return sentence("public_no", {"server": forward.server.name, "port": status.allocated_port})


def _public_note(forward: Forward, status: ForwardStatus) -> str:
    """Say what became of the wish to listen publicly on the server."""
    values = {"server": forward.server.name, "port": status.allocated_port}
    if status.public == Public.NO and status.reason:
        # The sentence of the row is about something else then.
        return _not_public(forward, status)
    if status.public == Public.YES:
        return _("%(server)s listens publicly on port %(port)s. Its firewall decides who gets in.") % values
    if status.public == Public.UNKNOWN:
        return _("%(server)s does not let Tunnelweb see whether port %(port)s is public.") % values
    return ""


def route(forward: Forward, *, here: str) -> tuple[str, str, str]:
    """Return the way of a forward in three words: where it listens, what carries it, where it ends.

    `here` is the name of Tunnelweb's machine. The destination of a dynamic forward is what the client asks for.
    """
    status = _status_of(forward)
    host, port = forward.listen_address
    shown_port: int | str = port or (status.allocated_port if status and status.allocated_port else _("any port"))
    listen = join_host_port(host, shown_port)
    dest = forward.dest_address
    end = join_host_port(*dest) if dest else _("what the client asks for")
    if forward.kind == ForwardKind.REMOTE:
        return listen, here, end
    return listen, forward.server.name, end
