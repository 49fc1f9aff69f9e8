"""What the two list pages show for an address: filter, order and page, with a constant number of queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.paginator import Paginator
from django.db.models import F, Q, QuerySet
from django.http import QueryDict
from django.utils.translation import gettext as _

from forwards import rows
from forwards.models import Forward, ForwardKind, ForwardState, Server, Worker
from forwards.shown import UNKNOWN

PAGE_SIZE = 50
SORTS: Mapping[str, str] = {
    "state": "status__state",
    "name": "name",
    "server": "server__name",
    "connections": "status__connections",
    "in": "status__bytes_in",
    "out": "status__bytes_out",
}
SERVER_SORTS: Mapping[str, str] = {"state": "status__state", "name": "name", "forwards": "forwards_count"}
_FILTERED_STATES = (
    ForwardState.STOPPED,
    ForwardState.STARTING,
    ForwardState.LISTENING,
    ForwardState.RETRYING,
    ForwardState.FAILED,
)


def state_filter(state: str, *, worker_alive: bool) -> Q:
    """Return the condition for rows that show `state`: `shown()` as a query, and tested to agree with it."""
    if not worker_alive:
        return Q(enabled=state == UNKNOWN) if state in (ForwardState.STOPPED, UNKNOWN) else Q(pk__in=[])
    gone = Q(status=None) | Q(status__state__in=[ForwardState.STOPPED, ForwardState.FAILED])
    if state == ForwardState.STOPPED:
        return Q(enabled=False) & gone
    if state == ForwardState.STOPPING:
        return Q(enabled=False) & ~gone
    ended = Q(status=None) | Q(status__state__in=[ForwardState.STOPPED, ForwardState.STOPPING])
    stale = ~Q(status__generation=F("generation"))
    if state == ForwardState.STARTING:
        return Q(enabled=True) & (ended | stale | Q(status__state=ForwardState.STARTING))
    return Q(enabled=True, status__state=state) & ~stale


def forward_list(query: QueryDict) -> dict[str, Any]:
    """Return what the Port Forward page shows for these parameters. Ones that make no sense are ignored."""
    alive = Worker.is_alive()
    servers = list(Server.objects.values("pk", "name"))
    chosen = {
        "q": query.get("q", "").replace("\0", "").strip(),
        "kind": _one_of(query.get("kind"), ForwardKind.values),
        "server": _one_of(query.get("server"), [str(server["pk"]) for server in servers]),
        "state": _one_of(query.get("state"), [*ForwardState.values, UNKNOWN]),
    }
    found = Forward.objects.for_rows()
    if chosen["q"]:
        found = found.filter(_text_filter(chosen["q"]))
    if chosen["kind"]:
        found = found.filter(kind=chosen["kind"])
    if chosen["server"]:
        found = found.filter(server_id=chosen["server"])
    if chosen["state"]:
        found = found.filter(state_filter(chosen["state"], worker_alive=alive))
    context = _paged(found, query, chosen, SORTS)
    context["rows"] = [rows.forward_row(forward, worker_alive=alive) for forward in context["page"]]
    return {
        **context,
        "list_name": rows.FORWARD_LIST,
        "worker_alive": alive,
        "servers": [{**server, "pk": str(server["pk"])} for server in servers],
        "kinds": ForwardKind.choices,
        "states": _state_choices(worker_alive=alive),
    }


def server_list(query: QueryDict) -> dict[str, Any]:
    """Return what the Servers page shows for these parameters."""
    alive = Worker.is_alive()
    chosen = {"q": query.get("q", "").replace("\0", "").strip()}
    found = rows.servers_for_rows()
    if chosen["q"]:
        text = chosen["q"]
        found = found.filter(Q(name__icontains=text) | Q(host__icontains=text) | Q(user__icontains=text))
    context = _paged(found, query, chosen, SERVER_SORTS)
    context["rows"] = [rows.server_row(server, worker_alive=alive) for server in context["page"]]
    return {**context, "list_name": rows.SERVER_LIST, "worker_alive": alive}


def _one_of(value: str | None, known: list[str]) -> str:
    return value if value is not None and value in known else ""


def _text_filter(text: str) -> Q:
    wanted = Q(name__icontains=text) | Q(server__name__icontains=text)
    wanted |= Q(local_host__icontains=text) | Q(remote_host__icontains=text)
    if text.isascii() and text.isdigit() and len(text) <= 5:
        wanted |= Q(local_port=int(text)) | Q(remote_port=int(text))
    return wanted


def _state_choices(*, worker_alive: bool) -> list[tuple[str, str]]:
    choices = [(state.value, str(state.label)) for state in _FILTERED_STATES]
    return choices if worker_alive else [*choices, (UNKNOWN, _("Unknown"))]


def _paged(found: QuerySet[Any], query: QueryDict, chosen: dict[str, str], sorts: Mapping[str, str]) -> dict[str, Any]:
    """Return page, filter and order, with the address that stands for each."""
    sort = query.get("sort", "")
    if sort.removeprefix("-") not in sorts:
        sort = "name"
    column = F(sorts[sort.removeprefix("-")])
    order = column.desc(nulls_last=True) if sort.startswith("-") else column.asc(nulls_first=True)
    page = Paginator(found.order_by(order, "name", "pk"), PAGE_SIZE).get_page(query.get("page"))
    filtered = any(chosen.values())
    kept = {**{name: value for name, value in chosen.items() if value}, **({"sort": sort} if sort != "name" else {})}
    return {
        "page": page,
        "total": page.paginator.count,
        "chosen": chosen,
        "filtered": filtered,
        "sort": sort,
        "url": _address(kept, page.number),
        "pages": [
            {"number": number, "url": _address(kept, number) if isinstance(number, int) else ""}
            for number in page.paginator.get_elided_page_range(page.number, on_each_side=1, on_ends=1)
        ],
        "columns": {name: _column(kept, sort, name) for name in sorts},
        # Rows come and go by themselves where what is filtered or sorted by changes by itself.
        "live_filter": bool(chosen.get("state")) or sort.removeprefix("-") == "state",
    }


def _address(kept: dict[str, str], number: int) -> str:
    parameters = QueryDict(mutable=True)
    parameters.update(kept)
    if number > 1:
        parameters["page"] = str(number)
    return f"?{parameters.urlencode()}"


def _column(kept: dict[str, str], sort: str, name: str) -> dict[str, str]:
    """Return the address that sorts by this column (the other way round when it is sorted by) with its aria-sort."""
    turned = f"-{name}" if sort == name else name
    others = {key: value for key, value in kept.items() if key != "sort"}
    by = {} if turned == "name" else {"sort": turned}
    aria = {name: "ascending", f"-{name}": "descending"}.get(sort, "none")
    return {"name": name, "url": _address({**others, **by}, 1), "aria": aria}
