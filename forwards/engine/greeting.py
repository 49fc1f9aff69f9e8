"""Whether what hung up on us was an SSH server at all."""

from __future__ import annotations

import asyncio

TIMEOUT = 2.0

# What OpenSSH says instead of its version to somebody it has no place for.
_FROM_SSH = (b"SSH-", b"Exceeded MaxStartups", b"Not allowed at this time")


async def speaks_otherwise(host: str, port: int) -> bool:
    """Say whether the first words of what listens at `host:port` are none of SSH; no when it has none.

    asyncssh cannot tell: RFC 4253 lets a server send lines of text before its version, so all of them pass for that.
    """
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"SSH-2.0-Tunnelweb\r\n")
                first = await reader.read(64)
            finally:
                writer.transport.abort()
    except OSError:
        return False
    return bool(first) and not first.startswith(_FROM_SSH)
