"""The Servers page, its dialogs and buttons, and the page for a changed host key."""

from django.contrib.auth.models import User
from django.db.models import ProtectedError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from forwards import htmx, listing, rows, services
from forwards.forms import AcceptKeyForm, ServerForm
from forwards.models import Server


@require_GET
def server_list(request: HttpRequest) -> HttpResponse:
    context = listing.server_list(request.GET)
    return htmx.page_or_part(request, "servers/list.html", "servers/region.html", context, url=context["url"])


@require_http_methods(["GET", "POST"])
def add(request: HttpRequest) -> HttpResponse:
    form = ServerForm(request.POST or None)
    if form.is_valid():
        services.save_server(form.save(commit=False))
        return htmx.saved(request, _("Server added."), "forwards:servers")
    return htmx.dialog(request, "servers/form.html", {"form": form})


@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    server = get_object_or_404(Server, pk=pk)
    form = ServerForm(request.POST or None, instance=server)
    if form.is_valid():
        services.save_server(form.save(commit=False))
        return htmx.saved(request, _("Server saved."), "forwards:servers")
    return htmx.dialog(request, "servers/form.html", {"form": form, "server": server})


@require_http_methods(["GET", "POST"])
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    server = get_object_or_404(Server, pk=pk)
    if request.method == "POST":
        try:
            services.delete_servers([server])
        except ProtectedError:
            return htmx.dialog(request, "servers/delete.html", {"server": server})
        return htmx.saved(request, _("Server deleted."), "forwards:servers")
    return htmx.dialog(request, "servers/delete.html", {"server": server})


@require_POST
def test(request: HttpRequest, pk: int) -> HttpResponse:
    services.request_test(get_object_or_404(Server, pk=pk))
    return htmx.done()


def _person(request: HttpRequest) -> User | None:
    return request.user if isinstance(request.user, User) else None


@require_POST
def trust(request: HttpRequest, pk: int) -> HttpResponse:
    server = get_object_or_404(Server, pk=pk)
    try:
        services.trust_host_key(server, request.POST.get("fingerprint", ""), _person(request), replace=False)
    except services.FingerprintMismatch:
        text = _("Not trusted: %(server)s shows another key now. Compare the fingerprint again.")
        return htmx.done(toast=text % {"server": server.name}, level="danger", refresh=True)
    return htmx.done(toast=_("The host key is trusted from now on."))


@require_http_methods(["GET", "POST"])
def accept_key(request: HttpRequest, pk: int) -> HttpResponse:
    server = get_object_or_404(rows.servers_for_rows(), pk=pk)
    form = AcceptKeyForm(request.POST or None, server=server, by=_person(request))
    if form.is_valid() and form.accept():
        return redirect("forwards:servers")
    return render(request, "servers/accept_key.html", {"form": form, "server": server})
