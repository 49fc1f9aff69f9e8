"""States of a forward and of an SSH connection, and the snapshots the engine reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Params = Mapping[str, str | int]


class State(StrEnum):
    """State of a forward; an SSH connection knows the same ones, `listening` meaning signed in."""

    STOPPED = "stopped"
    STARTING = "starting"
    LISTENING = "listening"
    RETRYING = "retrying"
    FAILED = "failed"
    STOPPING = "stopping"


_NEXT: Mapping[State, frozenset[State]] = {
    State.STOPPED: frozenset({State.STARTING}),
    State.STARTING: frozenset({State.LISTENING, State.RETRYING, State.FAILED, State.STOPPING}),
    State.LISTENING: frozenset({State.STARTING, State.RETRYING, State.FAILED, State.STOPPING}),
    State.RETRYING: frozenset({State.STARTING, State.LISTENING, State.FAILED, State.STOPPING}),
    State.FAILED: frozenset({State.STARTING, State.LISTENING, State.RETRYING, State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED, State.STARTING}),
}


def may_follow(old: State, new: State) -> bool:
    """Say whether a forward in state `old` may go to `new`; staying is always allowed."""
    return old is new or new in _NEXT[old]


class Public(StrEnum):
    """Whether a remote forward that was asked to listen publicly really does."""

    NOT_ASKED = ""
    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, for forwards.reasons to put in words."""

    code: str
    params: Params = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counters:
    """Traffic of one forward since it was started.

    From the user's side, whatever the kind: `bytes_in` came through the tunnel to the client, `bytes_out` went
    from the client into it. `active` client connections are open now; `total` were accepted so far.
    """

    active: int = 0
    total: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """Snapshot of one forward. Times are Unix seconds.

    `problem` explains retrying and failed; on a listening forward it is a warning: the port is open, but what is
    behind it does not answer. `retry_at` is when the engine tries again by itself, None for never.
    """

    forward_id: int
    generation: int
    state: State
    problem: Problem | None = None
    attempt: int = 0
    retry_at: float | None = None
    allocated_port: int | None = None
    public: Public = Public.NOT_ASKED
    since: float = 0.0
    counters: Counters = field(default=Counters(), compare=False)


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """Snapshot of one SSH connection. `presented_key` is a host key that waits for a person's trust."""

    server_id: int
    state: State
    problem: Problem | None = None
    presented_key: str = ""
    since: float = 0.0
