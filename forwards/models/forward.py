"""Port forwards that are wanted."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from forwards.engine import specs
from forwards.fields import PortField, checked
from forwards.models.server import Server


class ForwardKind(models.TextChoices):
    LOCAL = specs.Kind.LOCAL.value, _("Local")
    REMOTE = specs.Kind.REMOTE.value, _("Remote")
    DYNAMIC = specs.Kind.DYNAMIC.value, _("Dynamic")


# The name stands for both addresses.
_SAME_ADDRESS = {
    "localhost": ("localhost", "127.0.0.1", "::1"),
    "127.0.0.1": ("127.0.0.1", "localhost"),
    "::1": ("::1", "localhost"),
}


class ForwardQuerySet(models.QuerySet["Forward"]):
    def for_rows(self) -> ForwardQuerySet:
        """Return the forwards with everything a row shows, in one query."""
        return self.select_related("server", "status", "server__status")

    def overlapping(self, forward: Forward) -> ForwardQuerySet:
        """Return the other forwards that want the same listening port on the same machine as `forward`."""
        host, port = forward.listen_address
        others = self.exclude(pk=forward.pk) if forward.pk else self.all()
        if not port:
            return others.none()
        if forward.kind == ForwardKind.REMOTE:
            others = others.filter(kind=ForwardKind.REMOTE, server_id=forward.server_id, remote_port=port)
            column = "remote_host"
        else:
            others = others.exclude(kind=ForwardKind.REMOTE).filter(local_port=port)
            column = "local_host"
        if specs.is_every_interface(host):
            return others
        same = _SAME_ADDRESS.get(host.lower(), (host,))
        return others.filter(
            Q(**{f"{column}__iexact": host})
            | Q(**{f"{column}__in": same})
            | Q(**{f"{column}__in": [specs.ANY_INTERFACE, "0.0.0.0", "::", "::ffff:0.0.0.0"]})  # noqa: S104
        )


class Forward(models.Model):
    """A port forward the user wants. `enabled` is what Start and Stop write.

    local: `local_host:local_port` listens here, `remote_host:remote_port` is the destination the server reaches.
    remote: `remote_host:remote_port` listens on the server, `local_host:local_port` is reached from here.
    dynamic: `local_host:local_port` is a SOCKS proxy; there is no remote side.
    """

    name = models.CharField(_("Name"), max_length=100)
    kind = models.CharField(_("Type"), max_length=10, choices=ForwardKind, default=ForwardKind.LOCAL)
    server = models.ForeignKey(Server, verbose_name=_("Server"), on_delete=models.PROTECT, related_name="forwards")
    local_host = models.CharField(_("Local host"), max_length=300, blank=True, default=specs.LOOPBACK)
    local_port = PortField(_("Local port"))
    remote_host = models.CharField(_("Remote host"), max_length=300, blank=True, default=specs.LOOPBACK)
    remote_port = PortField(_("Remote port"), null=True, blank=True)
    probe = models.BooleanField(
        _("Check the destination at Start"),
        default=True,
        help_text=_("Opens one connection through the tunnel and closes it, to tell whether the destination answers."),
    )
    enabled = models.BooleanField(_("On"), default=False)
    generation = models.PositiveIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = ForwardQuerySet.as_manager()

    class Meta:
        ordering = ("name", "pk")
        verbose_name = _("forward")
        verbose_name_plural = _("forwards")

    def __str__(self) -> str:
        return self.name

    @property
    def listens_on_server(self) -> bool:
        return self.kind == ForwardKind.REMOTE

    @property
    def listen_address(self) -> tuple[str, int]:
        """Host and port of the listening end, as wanted."""
        if self.listens_on_server:
            return self.remote_host, self.remote_port or 0
        return self.local_host, self.local_port

    @property
    def dest_address(self) -> tuple[str, int] | None:
        """Host and port of the destination; None for a dynamic forward."""
        if self.kind == ForwardKind.DYNAMIC:
            return None
        if self.listens_on_server:
            return self.local_host, self.local_port
        return self.remote_host, self.remote_port or 0

    def clean(self) -> None:
        errors: dict[str, ValidationError] = {}
        if self.kind == ForwardKind.DYNAMIC:
            self.remote_host, self.remote_port = "", None
            sides = [("local", True)]
        else:
            sides = [("local", not self.listens_on_server), ("remote", self.listens_on_server)]
        for side, listening in sides:
            parse_host = specs.parse_bind_host if listening else specs.parse_host
            for name, parse, options in (
                (f"{side}_host", parse_host, {}),
                (f"{side}_port", specs.parse_port, {"listening": listening}),
            ):
                try:
                    setattr(self, name, self._clean_side(name, parse, options))
                except ValidationError as error:
                    errors[name] = error
        if errors:
            raise ValidationError(errors)

    def _clean_side(self, name: str, parse: Any, options: dict[str, Any]) -> Any:
        value = getattr(self, name)
        if name == "local_port" and value is None:
            return None  # its own field's check has said so already
        return checked(parse, "" if value is None else value, **options)

    def spec(self) -> specs.ForwardSpec:
        """Return the forward in the engine's terms. Raises specs.SpecError for a row nobody validated."""
        host, port = self.listen_address
        dest_host, dest_port = self.dest_address or ("", 0)
        bind_host = specs.parse_bind_host(host)
        return specs.ForwardSpec(
            id=self.pk,
            name=self.name,
            kind=specs.Kind(self.kind),
            server_id=self.server_id,
            listen_host=bind_host if bind_host == specs.ANY_INTERFACE else specs.wire_host(bind_host),
            listen_port=port,
            dest_host=specs.wire_host(dest_host),
            dest_port=dest_port,
            probe=self.probe,
            generation=self.generation,
        )
