"""Questions asked once when a forward opens: does its destination answer, is its remote port really public?"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncssh

from forwards.engine.errors import destination_problem
from forwards.engine.listeners import RemoteListener
from forwards.engine.specs import ForwardSpec, Kind, ServerSpec, is_every_interface, is_loopback
from forwards.engine.states import Problem, Public
from forwards.engine.tasks import Tasks, within

DESTINATION_TIMEOUT = 10.0
PUBLIC_TIMEOUT = 3.0
# Reached by no listener on 127.0.0.1, by every listener on 0.0.0.0: any other address of the loopback network.
OTHER_LOOPBACK = "127.0.0.2"


async def probe_destination(
    conn: asyncssh.SSHClientConnection, forward: ForwardSpec, server: ServerSpec, keeper: Tasks
) -> Problem | None:
    """Return why the destination of `forward` does not answer, None when it does.

    Opens one connection the way a client's would go, and closes it. A dynamic forward has no destination: whether
    the server forwards at all shows in the answer to a request for its own SSH port.
    """
    host, port = forward.dest_host, forward.dest_port
    if forward.kind is Kind.DYNAMIC:
        host, port = "127.0.0.1", server.port
    try:
        if forward.listens_on_server:
            async with asyncio.timeout(DESTINATION_TIMEOUT):
                _, writer = await asyncio.open_connection(host, port)
            writer.transport.abort()
        else:
            await _touch(conn, host, port, DESTINATION_TIMEOUT, keeper)
    except (asyncssh.Error, OSError, UnicodeError) as error:
        problem = destination_problem(error, forward, server)
        if forward.kind is Kind.DYNAMIC and problem.code != "forwarding_forbidden":
            return None
        return problem
    return None


async def probe_public(
    conn: asyncssh.SSHClientConnection, listener: RemoteListener, server: ServerSpec, keeper: Tasks
) -> Public:
    """Say whether a remote forward that asked for a public address was opened there.

    OpenSSH answers "yes" and binds loopback unless its GatewayPorts allows more. So the server is asked, through the
    tunnel, to connect to the port on an address that only a public listener serves, and the connection must arrive
    here: another program may listen there. Where the server does not forward connections, its address is tried from
    here, which proves a yes but never a no.
    """
    host = listener.forward.listen_host
    if is_loopback(host):
        return Public.NOT_ASKED
    peer = str((conn.get_extra_info("peername") or ("",))[0])
    candidates = [OTHER_LOOPBACK] if is_every_interface(host) else [host]
    if is_every_interface(host) and peer and not is_loopback(peer):
        candidates.append(peer)
    for candidate in candidates:
        if await _answers(conn, listener, candidate, keeper):
            return Public.YES
    # A "no" counts only if the same question about the loopback address gets a "yes". Of "::" alone, ::1 is a part:
    # that it answers says nothing. A server that keeps to loopback listens on both of its addresses.
    for loopback in ("127.0.0.1",) if host == "::" else ("127.0.0.1", "::1"):
        if await _answers(conn, listener, loopback, keeper):
            return Public.NO
    if peer and not is_loopback(peer) and await _answers_here(peer, listener.port):
        return Public.YES
    return Public.UNKNOWN


async def _answers(conn: asyncssh.SSHClientConnection, listener: RemoteListener, host: str, keeper: Tasks) -> bool:
    arrived = listener.expect(host)
    try:
        await _touch(conn, host, listener.port, PUBLIC_TIMEOUT, keeper)
        async with asyncio.timeout(PUBLIC_TIMEOUT):
            await arrived
    except (asyncssh.Error, OSError):
        return False
    finally:
        listener.forget(arrived)
    return True


async def _answers_here(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(PUBLIC_TIMEOUT):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.transport.abort()
    return True


async def _touch(conn: asyncssh.SSHClientConnection, host: str, port: int, seconds: float, keeper: Tasks) -> None:
    """Open a direct-tcpip channel to `host:port` and close it. Raises asyncssh.ChannelOpenError, TimeoutError."""

    def close(opened: tuple[Any, Any]) -> None:
        opened[0].abort()

    opening = conn.create_connection(_Silent, host, port)
    close(await within(seconds, opening, keeper=keeper, name="probe", undo=close))


class _Silent(asyncssh.SSHTCPSession[bytes]):
    """A session that ignores what it gets."""
