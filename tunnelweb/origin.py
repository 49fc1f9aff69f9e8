"""Who may open a websocket: pages of the dashboard itself, and no other.

Browsers let any page open a websocket anywhere and send its cookies along, and say where that page came from in the
Origin header. A web app opened through a forward on another port of localhost shares our cookies, so scheme, host and
port must all be our own; Channels' AllowedHostsOriginValidator compares the host alone.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest

DEFAULT_PORTS = {"http": 80, "https": 443}

_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?", re.ASCII | re.IGNORECASE)


def parse_origin(text: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of an origin, the scheme's own port where none is given; None if it is not one."""
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme, host = found[1].lower(), found[2].lower()
    return scheme, host, int(found[3] or DEFAULT_PORTS[scheme])


def own_origin(scope: dict[str, Any]) -> str | None:
    """Return the origin a websocket request was sent to; None if its Host is not one of ALLOWED_HOSTS.

    Host and scheme are what Django's own CSRF check takes them for. Daphne names no scheme for a websocket: without
    one it is plain `ws`, unless a trusted proxy says otherwise (SECURE_PROXY_SSL_HEADER).
    """
    scheme = "https" if scope.get("scheme") in ("wss", "https") else "http"
    request = ASGIRequest(
        {"type": "http", "method": "GET", "path": "/", "scheme": scheme, "headers": scope.get("headers", [])},
        BytesIO(),
    )
    try:
        return f"{request.scheme}://{request.get_host()}"
    except DisallowedHost:
        return None


def is_own_origin(scope: dict[str, Any]) -> bool:
    """Say whether the page that opens this websocket came from the dashboard itself."""
    given = [value.decode("latin1") for name, value in scope.get("headers", []) if name.lower() == b"origin"]
    own = own_origin(scope)
    if len(given) != 1 or own is None:
        return False
    page = parse_origin(given[0])
    return page is not None and page == parse_origin(own)


async def refuse(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Turn a websocket away before it is accepted; the browser sees 403."""
    await receive()
    await send({"type": "websocket.close"})


class OwnOriginOnly:
    """ASGI application that lets a websocket through to `application` if `is_own_origin`, and refuses it otherwise."""

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await (self.application if is_own_origin(scope) else refuse)(scope, receive, send)
