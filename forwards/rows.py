"""Rows of the two lists as HTML: for a page that is rendered, and for one that is already open in a browser.

Everything here renders without a request, because the websocket does. A page includes the very template that an update
renders, so the two cannot differ. What starts with `<template>` may travel beside any other fragment.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db.models import Count, QuerySet
from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from forwards.engine.specs import is_loopback, join_host_port
from forwards.engine.states import Public
from forwards.models import ConnectionTest, Forward, ForwardKind, ForwardState, Server, ServerStatus
from forwards.shown import UNKNOWN, Shown, route, shown

FORWARD_LIST = "forwards"
SERVER_LIST = "servers"


@cache
def here() -> str:
    """Return the name of the machine Tunnelweb runs on."""
    return socket.gethostname()


def servers_for_rows() -> QuerySet[Server]:
    """Return the servers with everything a row shows, in two queries."""
    servers = Server.objects.select_related("status", "test", "proxy_jump").prefetch_related("host_keys")
    return servers.annotate(forwards_count=Count("forwards"))


# Forwards


def counter(pk: int, name: str, value: int, *, oob: bool = False) -> SafeString:
    """Return one live number of a forward; `name` is connections, bytes_in or bytes_out."""
    text = number_format(value, force_grouping=True) if name == "connections" else filesizeformat(value)
    title = {
        "connections": ngettext("%s open client connection", "%s open client connections", value),
        "bytes_in": _("%s bytes in: came through the tunnel to the client"),
        "bytes_out": _("%s bytes out: went from the client into the tunnel"),
    }[name] % number_format(value, force_grouping=True)
    return format_html(
        '<span id="forward-{}-{}" class="tw-number" title="{}"{}>{}</span>',
        pk,
        name.replace("_", "-"),
        title,
        mark_safe(' hx-swap-oob="true"') if oob else "",  # noqa: S308 - a constant
        text,
    )


def counters_oob(rows: Iterable[Mapping[str, int]]) -> str:
    """Return the numbers that changed, from dicts of `id` and any of connections, bytes_in, bytes_out."""
    return format_html_join(
        "",
        "{}",
        (
            (counter(row["id"], name, row[name], oob=True),)
            for row in rows
            for name in ("connections", "bytes_in", "bytes_out")
            if name in row
        ),
    )


def forward_row(forward: Forward, *, worker_alive: bool) -> dict[str, Any]:
    """Return what templates/forwards/row.html needs, as its `row`."""
    state = shown(forward, worker_alive=worker_alive)
    listen, carrier, end = route(forward, here=here())
    retry_in = (state.retry_at - timezone.now()).total_seconds() if state.retry_at else None
    return {
        "forward": forward,
        "kind": forward.get_kind_display(),
        "shown": state,
        "route": (listen, carrier, end),
        "machine": forward.server.name if forward.listens_on_server else here(),
        "exposed": _exposed(forward, state),
        "notes": _notes(forward, state),
        "counters": {
            name: counter(forward.pk, name, getattr(state, name)) for name in ("connections", "bytes_in", "bytes_out")
        },
        "retry_in": None if retry_in is None else max(0, round(retry_in)),
        "mend": _mend(state.problem_code, state.problem_params, may_take_port=not forward.listens_on_server),
    }


def _exposed(forward: Forward, state: Shown) -> bool:
    """Say whether other machines may use the port; not when the server was asked for that and did otherwise."""
    return not is_loopback(forward.listen_address[0]) and state.public != Public.NO


def _notes(forward: Forward, state: Shown) -> list[str]:
    notes = [state.note] if state.note else []
    if _exposed(forward, state):
        notes.append(_("Other machines may use this port, and their way to it is not encrypted."))
    dest = forward.dest_address
    if dest is None or is_loopback(dest[0]):
        return notes
    if forward.kind == ForwardKind.REMOTE:
        if dest[0] != here():
            values = {"here": here(), "dest": join_host_port(*dest)}
            notes.append(_("Only the way to %(here)s is encrypted; from there to %(dest)s it is not.") % values)
    elif dest[0].lower() != forward.server.host.lower():
        values = {"server": forward.server.name, "dest": join_host_port(*dest)}
        notes.append(_("Only the leg to %(server)s is encrypted; from %(server)s to %(dest)s it is not.") % values)
    return notes


def _mend(code: str, params: Mapping[str, Any] | None, *, may_take_port: bool = False) -> dict[str, Any]:
    """Return what a person may do about a problem right beside it; `way` is trust, accept, port or empty."""
    values = dict(params or {})
    code = str(values.get("detail_code") or code)
    if code == "hostkey_unknown" and values.get("server_id") and values.get("fingerprint"):
        return {"way": "trust", **values}
    if code == "hostkey_changed" and values.get("server_id"):
        return {"way": "accept", **values}
    if may_take_port and values.get("free_port"):
        return {"way": "port", **values}
    return {"way": ""}


def render_forward_row(forward: Forward, *, worker_alive: bool, oob: bool = False) -> str:
    """Return the `<tr>` of a forward (from `Forward.objects.for_rows()`)."""
    row = forward_row(forward, worker_alive=worker_alive)
    return render_to_string("forwards/row.html", {"row": row, "oob": oob})


def forward_row_oob(forward: Forward, *, worker_alive: bool) -> str:
    """Return the row as a fragment that replaces it in an open page."""
    return f"<template>{render_forward_row(forward, worker_alive=worker_alive, oob=True)}</template>"


# Servers


def server_row(server: Server, *, worker_alive: bool) -> dict[str, Any]:
    """Return what templates/servers/row.html needs, as its `row`."""
    status: ServerStatus | None = _related(server, "status")
    count = getattr(server, "forwards_count", None)
    state, word, light = _connection(status, worker_alive=worker_alive)
    tested: ConnectionTest | None = _related(server, "test")
    if tested and status and status.since and tested.finished_at and tested.finished_at < status.since:
        # The connection has told more since.
        tested = None
    test = _test_outcome(tested, worker_alive=worker_alive)
    problem = status.sentence if status and worker_alive and not test.get("problem") else ""
    mend = _mend(status.reason, status.params) if status and problem else _mend("", None)
    return {
        "server": server,
        "sign_in": server.get_auth_display(),
        "host_keys": list(server.host_keys.all()),
        "forwards_count": server.forwards.count() if count is None else count,
        "state": state,
        "word": word,
        "light": light,
        "moving": state in (ForwardState.STARTING, ForwardState.RETRYING),
        "test": test,
        "problem": problem,
        "mend": test.get("mend") or mend,
    }


def _related(server: Server, name: str) -> Any:
    try:
        return getattr(server, name)
    except ObjectDoesNotExist:
        return None


def _connection(status: ServerStatus | None, *, worker_alive: bool) -> tuple[str, str, str]:
    """Return state, word and light of a server's SSH connection."""
    if not worker_alive:
        return UNKNOWN, _("Unknown"), "yellow"
    state = ForwardState(status.state) if status else ForwardState.STOPPED
    if state is ForwardState.STOPPED:
        return state.value, _("Not connected"), "secondary"
    light = {
        ForwardState.LISTENING: "green",
        ForwardState.FAILED: "red",
        ForwardState.RETRYING: "orange",
        ForwardState.STARTING: "azure",
    }
    return state.value, str(state.label), light.get(state, "secondary")


def _test_outcome(test: ConnectionTest | None, *, worker_alive: bool) -> dict[str, Any]:
    """Return the outcome of the last Test connection: `state` is none, running, ok or failed."""
    if test is None:
        return {"state": "none"}
    if test.finished_at is None:
        text = _("Testing the connection…") if worker_alive else _("The worker is not running: the test waits for it.")
        return {"state": "running", "text": text}
    if not test.reason:
        return {"state": "ok", "text": _("Signed in in %(ms)s ms") % {"ms": test.milliseconds}}
    return {"state": "failed", "problem": test.sentence, "mend": _mend(test.reason, test.params)}


def render_server_row(server: Server, *, worker_alive: bool, oob: bool = False) -> str:
    """Return the `<tr>` of a server (best from `servers_for_rows()`)."""
    return render_to_string("servers/row.html", {"row": server_row(server, worker_alive=worker_alive), "oob": oob})


def server_row_oob(server: Server, *, worker_alive: bool) -> str:
    """Return the row as a fragment that replaces it in an open page."""
    return f"<template>{render_server_row(server, worker_alive=worker_alive, oob=True)}</template>"


def refresh_oob(list_name: str) -> str:
    """Return a fragment that makes a page showing that list (FORWARD_LIST, SERVER_LIST) fetch it anew.

    The page keeps its filter, order and page number: it asks for its own address.
    """
    return format_html('<div id="live-refresh" hidden hx-swap-oob="true" data-refresh="{}"></div>', list_name)
