"""The admin's door to servers and forwards. Every write goes through services, as from everywhere else."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet, Value
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from forwards import services
from forwards.forms import ForwardForm, ServerForm
from forwards.models import Forward, HostKey, Server, Worker
from forwards.rows import here
from forwards.shown import Shown, route, shown

admin.site.site_header = _("Tunnelweb administration")
admin.site.site_title = _("Tunnelweb")
admin.site.index_title = _("Servers, forwards, users and groups")


class CheckedAdmin(admin.ModelAdmin):
    """An admin with a form of our own, which expects to have its fields.

    Whoever may look but not change gets a form without any, made by Django.
    """

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if change and not self.has_change_permission(request, obj):
            kwargs["form"] = ModelForm
        return super().get_form(request, obj, change, **kwargs)


class HostKeyInline(admin.TabularInline):
    """The trusted keys: a person can forget one here; new ones are trusted where their fingerprint is shown."""

    model = HostKey
    extra = 0
    fields = readonly_fields = ("algorithm", "fingerprint", "trusted_at", "trusted_by")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Server)
class ServerAdmin(CheckedAdmin):
    form = ServerForm
    inlines = (HostKeyInline,)
    list_display = ("name", "host", "port", "user", "auth", "proxy_jump")
    list_filter = ("auth",)
    list_select_related = ("proxy_jump",)
    list_per_page = 50
    search_fields = ("name", "host", "user")

    def get_fieldsets(self, request: HttpRequest, obj: Server | None = None) -> Any:
        secrets = ["key_text", "passphrase", "password"]
        if obj is not None and obj.has_secret("passphrase"):
            secrets.insert(2, "forget_passphrase")
        if obj is not None and not self.has_change_permission(request, obj):
            secrets = []
        connection = ["proxy_jump", "keepalive_interval", "keepalive_count_max", "connect_timeout"]
        return [
            (None, {"fields": ["name", "host", "port", "user"]}),
            (_("Sign-in"), {"fields": ["auth", "key_path", *secrets]}),
            (_("Connection"), {"fields": connection}),
        ]

    def save_model(self, request: HttpRequest, obj: Server, form: Any, change: bool) -> None:
        services.save_server(obj)

    def delete_model(self, request: HttpRequest, obj: Server) -> None:
        services.delete_servers([obj])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Server]) -> None:
        services.delete_servers(queryset)


@admin.register(Forward)
class ForwardAdmin(CheckedAdmin):
    form = ForwardForm
    list_display = ("name", "kind", "server", "route", "state")
    list_filter = ("kind", "enabled", "server")
    list_select_related = ("server", "status")
    list_per_page = 50
    search_fields = ("name", "server__name", "local_host", "remote_host", "=local_port", "=remote_port")
    readonly_fields = ("state", "problem")
    actions = ("start", "stop")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Forward]:
        # Asked once for all rows, and at hand where a column is drawn.
        return super().get_queryset(request).annotate(worker_alive=Value(Worker.is_alive()))

    def get_fieldsets(self, request: HttpRequest, obj: Forward | None = None) -> Any:
        fields = ["name", "kind", "server", "local_host", "local_port", "remote_host", "remote_port", "probe"]
        if obj is None or self.has_change_permission(request, obj):
            fields.append("save_anyway")
        status = [(_("Status"), {"fields": ["state", "problem"]})] if obj else []
        return [(None, {"fields": fields}), *status]

    @admin.display(description=_("Route"), ordering="local_port")
    def route(self, obj: Forward) -> str:
        return " → ".join(route(obj, here=here()))

    @admin.display(description=_("Status"))
    def state(self, obj: Forward) -> str:
        now = self._shown(obj)
        return format_html('<span data-state="{}">{}</span>', now.state, now.word)

    @admin.display(description=_("Problem"))
    def problem(self, obj: Forward) -> str:
        return self._shown(obj).problem or self.get_empty_value_display()

    def _shown(self, obj: Forward) -> Shown:
        return shown(obj, worker_alive=getattr(obj, "worker_alive", False))

    def save_model(self, request: HttpRequest, obj: Forward, form: Any, change: bool) -> None:
        services.save_forward(obj)
        for other in Forward.objects.overlapping(obj):
            text = _("“%(name)s” wants the same listening address. Only one of them can run at a time.")
            messages.warning(request, text % {"name": other.name})

    def delete_model(self, request: HttpRequest, obj: Forward) -> None:
        services.delete_forwards([obj])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Forward]) -> None:
        services.delete_forwards(queryset)

    @admin.action(description=_("Start"), permissions=["change"])
    def start(self, request: HttpRequest, queryset: QuerySet[Forward]) -> None:
        services.start(queryset)
        self._say(request, ngettext("%d forward is starting.", "%d forwards are starting.", len(queryset)), queryset)

    @admin.action(description=_("Stop"), permissions=["change"])
    def stop(self, request: HttpRequest, queryset: QuerySet[Forward]) -> None:
        services.stop(queryset)
        self._say(request, ngettext("%d forward is stopping.", "%d forwards are stopping.", len(queryset)), queryset)

    def _say(self, request: HttpRequest, text: str, queryset: QuerySet[Forward]) -> None:
        self.message_user(request, text % len(queryset), messages.SUCCESS)
