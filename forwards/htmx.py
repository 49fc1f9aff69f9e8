"""The protocol between our pages and our views: which part to send, and the events a response raises in the page.

Nothing else knows the names of events; static/tunnelweb/tunnelweb.js listens to the same ones.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.contrib.auth.middleware import LoginRequiredMiddleware as DjangoLoginRequired
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render, resolve_url
from django.utils.cache import patch_vary_headers
from django.utils.http import urlencode
from django_htmx.http import HttpResponseClientRedirect, push_url, trigger_client_event

CLOSE_DIALOG = "tw:close-dialog"
REFRESH = "tw:refresh"
TOAST = "tw:toast"


def _is_part(request: HttpRequest) -> bool:
    htmx = request.htmx  # type: ignore[attr-defined]
    return bool(htmx) and not htmx.history_restore_request and not htmx.boosted


def page_or_part(request: HttpRequest, page: str, part: str, context: dict[str, Any], *, url: str = "") -> HttpResponse:
    """Render `part` for htmx, the whole `page` for a browser; `url` is the address the page takes on with a part."""
    response = render(request, part if _is_part(request) else page, context)
    # One address, two answers: no cache may mix them up.
    patch_vary_headers(response, ["HX-Request"])
    response["Cache-Control"] = "no-store"
    if url and _is_part(request) and not _is_shown(request, url):
        push_url(response, url)
    return response


def _is_shown(request: HttpRequest, url: str) -> bool:
    """Say whether the page has this query already: a list that is fetched anew makes no step in the history."""
    current = request.htmx.current_url or ""  # type: ignore[attr-defined]
    return bool(urlsplit(current).query == urlsplit(url).query)


def dialog(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    """Render a dialog's content; opened by address it is a page of its own."""
    return page_or_part(request, "dialog_page.html", template, {**context, "dialog_template": template})


def done(*, toast: str = "", level: str = "success", close: bool = False, refresh: bool = False) -> HttpResponse:
    """Answer a POST that changes nothing in the page by itself: 204 and the events to raise there."""
    response = HttpResponse(status=204)
    if close:
        trigger_client_event(response, CLOSE_DIALOG)
    if refresh:
        trigger_client_event(response, REFRESH)
    if toast:
        trigger_client_event(response, TOAST, {"text": toast, "level": level})
    return response


def saved(request: HttpRequest, toast: str, home: str) -> HttpResponse:
    """Answer a dialog that did its work: it closes, and the list behind it (`home`) is fetched anew."""
    if not _is_part(request):
        return redirect(home)
    return done(toast=toast, close=True, refresh=True)


class LoginRequiredMiddleware(DjangoLoginRequired):
    """Django's, except that a signed-out page goes to the sign-in page as a whole, not row by row."""

    def handle_no_permission(self, request: HttpRequest, view_func: Any) -> HttpResponseBase:  # type: ignore[override]
        htmx = request.htmx  # type: ignore[attr-defined]
        if not htmx:
            return super().handle_no_permission(request, view_func)
        back = htmx.current_url_abs_path or resolve_url("forwards:list")
        return HttpResponseClientRedirect(f"{resolve_url(self.get_login_url(view_func))}?{urlencode({'next': back})}")
