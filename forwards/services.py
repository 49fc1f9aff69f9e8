"""Every write the worker must hear of. Each wakes it, and tells open dashboards, once the write is committed."""

from __future__ import annotations

from collections.abc import Iterable

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from forwards import messages
from forwards.models import ConnectionTest, Forward, HostKey, Server, ServerStatus


class FingerprintMismatch(Exception):
    """The key somebody wants to trust is no longer the one the server presented last."""


def _forwards_written(ids: Iterable[int], *, listed: bool = False) -> None:
    """After the commit: wake the worker and have rows drawn anew, or whole lists where `listed`."""
    changed = sorted(ids)

    def tell() -> None:
        messages.wake_worker_now(settings.WORKER_NAME)
        messages.announce_now(messages.FORWARDS_CHANGED, ids=changed)
        if listed:
            messages.announce_now(messages.FORWARDS_LISTED)

    transaction.on_commit(tell)


def _servers_written(ids: Iterable[int]) -> None:
    changed = sorted(ids)

    def tell() -> None:
        messages.wake_worker_now(settings.WORKER_NAME)
        messages.announce_now(messages.SERVERS_CHANGED, ids=changed)

    transaction.on_commit(tell)


def start(forwards: Iterable[Forward]) -> None:
    """Want these forwards on. One that is on already, and failed, is tried anew."""
    ids = [forward.pk for forward in forwards]
    with transaction.atomic():
        Forward.objects.filter(pk__in=ids).update(
            enabled=True, generation=F("generation") + 1, updated_at=timezone.now()
        )
        _forwards_written(ids)


def stop(forwards: Iterable[Forward]) -> None:
    """Want these forwards off."""
    ids = [forward.pk for forward in forwards]
    with transaction.atomic():
        Forward.objects.filter(pk__in=ids).update(enabled=False, updated_at=timezone.now())
        _forwards_written(ids)


def save_forward(forward: Forward) -> None:
    """Store a validated forward, new or changed; one that runs is restarted by the worker where that is needed.

    Whether a stored one is on stays what it is: it may have been started or stopped since `forward` was read.
    """
    with transaction.atomic():
        stored = Forward.objects.select_for_update().filter(pk=forward.pk).first()
        if stored is not None:
            forward.enabled, forward.generation = stored.enabled, stored.generation
        forward.save()
        _forwards_written([forward.pk], listed=True)


def take_port(forward: Forward, port: int) -> None:
    """Let a forward listen on another port of its own machine, and start it."""
    with transaction.atomic():
        Forward.objects.filter(pk=forward.pk).update(local_port=port, updated_at=timezone.now())
        start([forward])


def delete_forwards(forwards: Iterable[Forward]) -> None:
    """Delete forwards; the worker closes the ports of those that run."""
    ids = [forward.pk for forward in forwards]
    with transaction.atomic():
        Forward.objects.filter(pk__in=ids).delete()
        _forwards_written(ids, listed=True)


def save_server(server: Server) -> None:
    """Store a validated server. Changed ways to reach it make its forwards reconnect.

    Another host or port is another machine as far as host keys go: the trusted ones are dropped then.
    """
    with transaction.atomic():
        old = Server.objects.filter(pk=server.pk).first()
        server.save()
        # What a test found out was about the server as it was.
        ConnectionTest.objects.filter(server=server).delete()
        if old and (old.host, old.port) != (server.host, server.port):
            server.host_keys.all().delete()
        _servers_written([server.pk])
        _forwards_written(server.forwards.values_list("pk", flat=True), listed=True)


def delete_servers(servers: Iterable[Server]) -> None:
    """Delete servers. Raises django.db.models.ProtectedError while a forward or another server needs one."""
    ids = [server.pk for server in servers]
    with transaction.atomic():
        for server in Server.objects.filter(pk__in=ids):
            server.delete()
        _servers_written(ids)


def trust_host_key(server: Server, fingerprint: str, by: User | None, *, replace: bool) -> HostKey:
    """Trust the host key the server presented last, given its fingerprint as the person saw it.

    `replace` drops the keys trusted so far (a changed key was accepted). Raises FingerprintMismatch.
    """
    with transaction.atomic():
        status = ServerStatus.objects.filter(server=server).first()
        if status is None or not fingerprint or status.presented_fingerprint != fingerprint:
            raise FingerprintMismatch
        if status.presented_by != server.address:
            raise FingerprintMismatch
        if replace:
            server.host_keys.all().delete()
        elif server.host_keys.exists():
            raise FingerprintMismatch
        key = HostKey.objects.create(
            server=server,
            algorithm=status.presented_algorithm,
            public_key=status.presented_key,
            fingerprint=fingerprint,
            trusted_by=by,
        )
        ConnectionTest.objects.filter(server=server).delete()
        _servers_written([server.pk])
        _forwards_written(server.forwards.values_list("pk", flat=True))
        return key


def request_test(server: Server) -> None:
    """Ask the worker to try signing in at a server once; the outcome comes into its ConnectionTest."""
    with transaction.atomic():
        ConnectionTest.objects.update_or_create(
            server=server,
            defaults={
                "requested_at": timezone.now(),
                "taken_at": None,
                "finished_at": None,
                "reason": "",
                "params": {},
                "milliseconds": None,
            },
        )
        _servers_written([server.pk])
