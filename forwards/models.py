"""Facts: what is wanted (Server, HostKey, Forward), what is (…Status, Worker), and requests to the worker.

Writes that a worker must hear of go through forwards.services; the …Status rows are written by the worker alone.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from forwards.engine import specs
from forwards.engine.states import Public, State
from forwards.fields import PortField, checked
from forwards.reasons import sentence
from forwards.sealing import SealBroken, seal, unseal

HEARTBEAT_SECONDS = 2
WORKER_GONE_AFTER = timedelta(seconds=8)
SECRETS = ("key_text", "passphrase", "password")


class AuthMethod(models.TextChoices):
    AGENT = specs.Auth.AGENT.value, _("SSH agent")
    KEY_FILE = specs.Auth.KEY_FILE.value, _("Key file")
    KEY_TEXT = specs.Auth.KEY_TEXT.value, _("Pasted private key")
    PASSWORD = specs.Auth.PASSWORD.value, _("Password")


class ForwardKind(models.TextChoices):
    LOCAL = specs.Kind.LOCAL.value, _("Local")
    REMOTE = specs.Kind.REMOTE.value, _("Remote")
    DYNAMIC = specs.Kind.DYNAMIC.value, _("Dynamic")


class ForwardState(models.TextChoices):
    STOPPED = State.STOPPED.value, _("Disconnected")
    STARTING = State.STARTING.value, _("Connecting")
    LISTENING = State.LISTENING.value, _("Connected")
    RETRYING = State.RETRYING.value, _("Reconnecting")
    FAILED = State.FAILED.value, _("Error")
    STOPPING = State.STOPPING.value, _("Disconnecting")


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
        return specs.join_host_port(specs.wire_host(self.host), self.port)

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


class StatusRow(models.Model):
    """What the worker reports, in columns: a state and the problem that explains it."""

    state = models.CharField(max_length=20, choices=ForwardState, default=ForwardState.STOPPED)
    reason = models.CharField(max_length=50, blank=True)
    params = models.JSONField(default=dict, blank=True)
    since = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True

    @property
    def sentence(self) -> str:
        """What is wrong and what to do, or the empty string."""
        return sentence(self.reason, self.params) if self.reason else ""


class ServerStatus(StatusRow):
    """The SSH connection to a server as the worker sees it.

    `presented_key` is a host key that waits for a person's trust, shown by the machine at `presented_by`.
    """

    server = models.OneToOneField(Server, on_delete=models.CASCADE, related_name="status", primary_key=True)
    presented_key = models.TextField(blank=True)
    presented_fingerprint = models.CharField(max_length=100, blank=True)
    presented_by = models.CharField(max_length=310, blank=True)

    @property
    def presented_algorithm(self) -> str:
        return self.presented_key.partition(" ")[0]


class ConnectionTest(models.Model):
    """One press of *Test connection*: the page asks by making the row, the worker answers by filling it."""

    server = models.OneToOneField(Server, on_delete=models.CASCADE, related_name="test", primary_key=True)
    requested_at = models.DateTimeField()
    taken_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=50, blank=True)
    params = models.JSONField(default=dict, blank=True)
    milliseconds = models.PositiveIntegerField(null=True)

    @property
    def sentence(self) -> str:
        return sentence(self.reason, self.params) if self.reason else ""


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
        return others.filter(
            Q(**{f"{column}__iexact": host})
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


class ForwardStatus(StatusRow):
    """A forward as the worker sees it, for the `generation` that was started. Counters are since that start."""

    forward = models.OneToOneField(Forward, on_delete=models.CASCADE, related_name="status", primary_key=True)
    generation = models.PositiveIntegerField(default=0)
    attempt = models.PositiveIntegerField(default=0)
    retry_at = models.DateTimeField(null=True)
    allocated_port = PortField(null=True)
    public = models.CharField(max_length=10, blank=True, choices=[(item.value, item.name) for item in Public])
    connections = models.PositiveIntegerField(default=0)
    connections_total = models.PositiveBigIntegerField(default=0)
    bytes_in = models.PositiveBigIntegerField(default=0)
    bytes_out = models.PositiveBigIntegerField(default=0)


class Worker(models.Model):
    """A process that runs tunnels, by name. It writes its heartbeat every HEARTBEAT_SECONDS."""

    name = models.CharField(max_length=100, primary_key=True)
    hostname = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name

    @classmethod
    def is_alive(cls, name: str | None = None) -> bool:
        """Say whether the worker (default: settings.WORKER_NAME) gave a sign of life of late."""
        limit = timezone.now() - WORKER_GONE_AFTER
        return cls.objects.filter(name=name or settings.WORKER_NAME, heartbeat_at__gte=limit).exists()


class SignInToken(models.Model):
    """A one-time sign-in link, stored as the hash of its token."""

    token_hash = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"sign-in link of {self.user}"
