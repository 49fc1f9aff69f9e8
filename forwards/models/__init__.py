"""Facts: what is wanted (Server, HostKey, Forward), what is (the …Status rows, Worker), and requests to the worker.

Writes that a worker must hear of go through forwards.services; the …Status rows are written by the worker alone.
"""

from forwards.models.forward import Forward, ForwardKind, ForwardQuerySet
from forwards.models.server import SECRETS, AuthMethod, HostKey, Server
from forwards.models.sign_in import SignInToken
from forwards.models.status import (
    HEARTBEAT_SECONDS,
    WORKER_GONE_AFTER,
    ConnectionTest,
    ForwardState,
    ForwardStatus,
    ServerStatus,
    StatusRow,
    Worker,
)

__all__ = [
    "HEARTBEAT_SECONDS",
    "SECRETS",
    "WORKER_GONE_AFTER",
    "AuthMethod",
    "ConnectionTest",
    "Forward",
    "ForwardKind",
    "ForwardQuerySet",
    "ForwardState",
    "ForwardStatus",
    "HostKey",
    "Server",
    "ServerStatus",
    "SignInToken",
    "StatusRow",
    "Worker",
]
