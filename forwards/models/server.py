"""SSH servers that are wanted, and the host keys trusted for them."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from forwards.engine import specs
from forwards.fields import PortField, checked
from forwards.reasons import sentence
from forwards.sealing import SealBroken, seal, unseal

SECRETS = ("key_text", "passphrase", "password")


class AuthMethod(models.TextChoices):
    AGENT = specs.Auth.AGENT.value, _("SSH agent")
    KEY_FILE = specs.Auth.KEY_FILE.value, _("Key file")
    KEY_TEXT = specs.Auth.KEY_TEXT.value, _("Pasted private key")
    PASSWORD = specs.Auth.PASSWORD.value, _("Password")


class Server(models.Model):
    """An SSH server and how to sign in there. The three `…_sealed` columns hold sealed secrets, never clear text."""

    name = models.CharField(_("Name"), max_length=100, unique=True)
    host = models.CharField(_("Host"), max_length=300)
    port = PortField(_("Port"), default=22)
    user = models.CharField(_("User"), max_length=300)
    auth = models.CharField(_("Sign-in"), max_length=20, choices=AuthMethod, default=AuthMethod.AGENT)
    key_path = models.CharField(
        _("Key file"),
        max_length=1000,
        blank=True,
        help_text=_("Path on the machine Tunnelweb runs on, for example ~/.ssh/id_ed25519"),
    )
    key_text_sealed = models.TextField(blank=True, editable=False)
    passphrase_sealed = models.TextField(blank=True, editable=False)
    password_sealed = models.TextField(blank=True, editable=False)
    proxy_jump = models.ForeignKey(
        "self",
        verbose_name=_("Jump host"),
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="reached_through_it",
    )
    keepalive_interval = models.PositiveIntegerField(
        _("Keepalive interval"),
        default=15,
        validators=[MinValueValidator(1), MaxValueValidator(3600)],
        help_text=_("Seconds between two questions to the server whether it is still there."),
    )
    keepalive_count_max = models.PositiveIntegerField(
        _("Keepalive count"),
        default=3,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text=_("Questions without an answer before the connection counts as lost."),
    )
    connect_timeout = models.PositiveIntegerField(
        _("Connect timeout"),
        default=15,
        validators=[MinValueValidator(1), MaxValueValidator(300)],
        help_text=_("Seconds for reaching the server and signing in."),
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("name",)
        verbose_name = _("server")
        verbose_name_plural = _("servers")

    def __str__(self) -> str:
        return self.name

    @property
    def address(self) -> str:
        """Host and port; the host as it is written where no form ever checked it."""
        try:
            host = specs.wire_host(self.host)
        except specs.SpecError:
            host = self.host
        return specs.join_host_port(host, self.port)

    def clean(self) -> None:
        errors: dict[str, ValidationError] = {}
        for name, parse, options in (
            ("host", specs.parse_host, {}),
            ("user", specs.parse_user, {}),
            ("port", specs.parse_port, {"listening": False}),
        ):
            value = getattr(self, name)
            try:
                # A value that failed its own field's check is not there; it has its error already.
                setattr(self, name, checked(parse, value, **options) if value not in ("", None) else value)
            except ValidationError as error:
                errors[name] = error
        if self.jump_chain_loops():
            errors["proxy_jump"] = ValidationError(sentence("jump_loop"), code="jump_loop")
        if errors:
            raise ValidationError(errors)

    def jump_chain_loops(self) -> bool:
        """Say whether following the jump hosts comes back to a server already passed."""
        seen = {self.pk}
        hop = self.proxy_jump
        while hop is not None:
            if hop.pk in seen:
                return True
            seen.add(hop.pk)
            hop = hop.proxy_jump
        return False

    def set_secret(self, name: str, text: str) -> None:
        """Store one of SECRETS sealed; the empty string removes it. The caller saves."""
        if name not in SECRETS:
            raise ValueError(name)
        setattr(self, f"{name}_sealed", seal(text))

    def has_secret(self, name: str) -> bool:
        """Say whether one of SECRETS is stored."""
        return bool(getattr(self, f"{name}_sealed"))

    def spec(self) -> specs.ServerSpec:
        """Return what the engine needs to connect, secrets included. Only the worker may call this."""
        secrets: dict[str, Any] = {}
        try:
            secrets = {name: unseal(getattr(self, f"{name}_sealed")) for name in SECRETS}
        except SealBroken:
            secrets = {"secrets_lost": True}
        return specs.ServerSpec(
            id=self.pk,
            name=self.name,
            host=specs.wire_host(self.host),
            port=self.port,
            user=self.user,
            auth=specs.Auth(self.auth),
            key_path=self.key_path,
            proxy_jump=self.proxy_jump_id,
            keepalive_interval=self.keepalive_interval,
            keepalive_count_max=self.keepalive_count_max,
            connect_timeout=self.connect_timeout,
            host_keys=tuple(sorted(key.public_key for key in self.host_keys.all())),
            **secrets,
        )


class HostKey(models.Model):
    """A host key somebody trusted for a server; from then on only these are accepted."""

    server = models.ForeignKey(Server, on_delete=models.CASCADE, related_name="host_keys")
    algorithm = models.CharField(_("Algorithm"), max_length=100)
    public_key = models.TextField(_("Public key"), help_text=_("OpenSSH form: algorithm and base64."))
    fingerprint = models.CharField(_("SHA-256 fingerprint"), max_length=100)
    trusted_at = models.DateTimeField(_("Trusted at"), auto_now_add=True)
    trusted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("Trusted by"), null=True, blank=True, on_delete=models.SET_NULL
    )

    class Meta:
        verbose_name = _("host key")
        verbose_name_plural = _("host keys")
        constraints = [models.UniqueConstraint(fields=("server", "public_key"), name="host_key_once")]

    def __str__(self) -> str:
        return f"{self.algorithm} {self.fingerprint}"
