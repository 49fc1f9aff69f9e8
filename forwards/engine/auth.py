"""What Tunnelweb signs in with: key, password or agent, as arguments for asyncssh."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncssh

from forwards.engine.errors import EngineError, Retry
from forwards.engine.keys import import_key, read_key_file
from forwards.engine.specs import Auth, ServerSpec

KEY_FILE_TIMEOUT = 5.0
AGENT_TIMEOUT = 5.0

_NO_KEYS: dict[str, Any] = {"client_keys": None, "agent_path": None}


@asynccontextmanager
async def credentials(server: ServerSpec) -> AsyncIterator[dict[str, Any]]:
    """Yield the sign-in arguments of asyncssh.connect for as long as signing in takes.

    Exactly the chosen method is offered: no default key, no agent that happens to run. Raises EngineError or SpecError.
    """
    if server.secrets_lost:
        raise EngineError("secrets_lost", Retry.NEVER, server=server.name)
    if server.auth is Auth.AGENT:
        async with _agent(server) as keys:
            yield {"client_keys": keys, "agent_path": None, "preferred_auth": ["publickey"]}
    elif server.auth is Auth.PASSWORD:
        # Many servers ask for the password by keyboard-interactive; asyncssh uses it once, whichever comes first.
        yield {**_NO_KEYS, "password": server.password, "preferred_auth": ["password", "keyboard-interactive"]}
    else:
        text = server.key_text
        if server.auth is Auth.KEY_FILE:
            # A network file system may hang; the thread is then lost, but not the connection attempt.
            async with asyncio.timeout(KEY_FILE_TIMEOUT):
                text = await asyncio.to_thread(read_key_file, server.key_path)
        key = import_key(text, server.passphrase)
        yield {"client_keys": [key], "agent_path": None, "preferred_auth": ["publickey"]}


@asynccontextmanager
async def _agent(server: ServerSpec) -> AsyncIterator[list[Any]]:
    missing = EngineError("agent_missing", Retry.NEVER, server=server.name)
    path = os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise missing
    try:
        async with asyncio.timeout(AGENT_TIMEOUT):
            agent = await asyncssh.connect_agent(path)
    except (OSError, TimeoutError):
        raise missing from None
    async with agent:
        try:
            async with asyncio.timeout(AGENT_TIMEOUT):
                keys = await agent.get_keys()
        except (ValueError, OSError, TimeoutError):
            raise missing from None
        if not keys:
            raise EngineError("agent_empty", Retry.NEVER, server=server.name)
        yield list(keys)
