"""The Port Forward page, its dialogs and its buttons."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from forwards import htmx, listing, services
from forwards.forms import ForwardForm, TakePortForm
from forwards.models import Forward, ForwardKind


@require_GET
def forward_list(request: HttpRequest) -> HttpResponse:
    context = listing.forward_list(request.GET)
    return htmx.page_or_part(request, "forwards/list.html", "forwards/region.html", context, url=context["url"])


@require_http_methods(["GET", "POST"])
def add(request: HttpRequest) -> HttpResponse:
    form = ForwardForm(request.POST or None)
    if form.is_valid():
        services.save_forward(form.save(commit=False))
        return htmx.saved(request, _("Forward added."), "forwards:list")
    return htmx.dialog(request, "forwards/form.html", {"form": form})


@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    forward = get_object_or_404(Forward, pk=pk)
    if request.method == "GET" and forward.enabled:
        return htmx.dialog(request, "forwards/stop_and_edit.html", {"forward": forward})
    form = ForwardForm(request.POST or None, instance=forward)
    if form.is_valid():
        services.save_forward(form.save(commit=False))
        return htmx.saved(request, _("Forward saved."), "forwards:list")
    return htmx.dialog(request, "forwards/form.html", {"form": form, "forward": forward})


@require_POST
def stop_and_edit(request: HttpRequest, pk: int) -> HttpResponse:
    services.stop([get_object_or_404(Forward, pk=pk)])
    forward = get_object_or_404(Forward, pk=pk)
    return htmx.dialog(request, "forwards/form.html", {"form": ForwardForm(instance=forward), "forward": forward})


@require_http_methods(["GET", "POST"])
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    forward = get_object_or_404(Forward.objects.for_rows(), pk=pk)
    if request.method == "POST":
        services.delete_forwards([forward])
        return htmx.saved(request, _("Forward deleted."), "forwards:list")
    return htmx.dialog(request, "forwards/delete.html", {"forward": forward})


@require_POST
def start(request: HttpRequest, pk: int) -> HttpResponse:
    services.start([get_object_or_404(Forward, pk=pk)])
    return htmx.done()


@require_POST
def stop(request: HttpRequest, pk: int) -> HttpResponse:
    services.stop([get_object_or_404(Forward, pk=pk)])
    return htmx.done()


@require_POST
def take_port(request: HttpRequest, pk: int) -> HttpResponse:
    forward = get_object_or_404(Forward.objects.exclude(kind=ForwardKind.REMOTE), pk=pk)
    form = TakePortForm(request.POST)
    if not form.is_valid():
        return htmx.done(toast=" ".join(map(str, form.errors["port"])), level="danger")
    services.take_port(forward, form.cleaned_data["port"])
    return htmx.done()
