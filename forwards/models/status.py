"""What is, as the worker reports it: states of forwards and servers, tests, and the worker itself."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from forwards.engine.states import Public, State
from forwards.fields import PortField
from forwards.models.forward import Forward
from forwards.models.server import Server
from forwards.reasons import sentence

HEARTBEAT_SECONDS = 2
WORKER_GONE_AFTER = timedelta(seconds=8)


class ForwardState(models.TextChoices):
    STOPPED = State.STOPPED.value, _("Disconnected")
    STARTING = State.STARTING.value, _("Connecting")
    LISTENING = State.LISTENING.value, _("Connected")
    RETRYING = State.RETRYING.value, _("Reconnecting")
    FAILED = State.FAILED.value, _("Error")
    STOPPING = State.STOPPING.value, _("Disconnecting")


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
