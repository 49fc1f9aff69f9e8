"""An established SSH connection, as those who use it see it."""

from __future__ import annotations

import asyncio

import asyncssh

from forwards.engine.wire import Wire

CLOSE_TIMEOUT = 3.0


class Session:
    """An established SSH connection, the wire its channels send by, and the future that tells why it ended."""

    def __init__(
        self, conn: asyncssh.SSHClientConnection, lost: asyncio.Future[BaseException | None], wire: Wire | None = None
    ) -> None:
        self.conn = conn
        self.lost = lost
        self.wire = wire or Wire(conn)

    async def close(self) -> None:
        """Disconnect; after CLOSE_TIMEOUT seconds without an answer the socket is dropped."""
        self.conn.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.conn.wait_closed()
        except TimeoutError:
            self.conn.abort()
