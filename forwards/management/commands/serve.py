"""`manage.py serve`: everything in one process, made ready by itself."""

from __future__ import annotations

import os
import socket
import sys
import webbrowser
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from forwards import signin
from forwards.engine.specs import ANY_INTERFACE, is_every_interface, join_host_port
from tunnelweb import process


class Command(BaseCommand):
    help = "Start the dashboard and run its forwards."
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="localhost", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 chooses one (default: 8000)")
        parser.add_argument("--no-worker", action="store_true", help="serve pages only; tunnels run elsewhere")
        parser.add_argument("--no-browser", action="store_true", help="do not open a browser")

    def handle(self, *args: Any, **options: Any) -> None:
        # An unset variable in a script must not open the dashboard to every interface.
        host, port = options["host"].strip() or "localhost", options["port"]
        if not 0 <= port <= 65535:
            raise CommandError(f"{port} is no port: choose one between 0 and 65535.")
        # Choosing the event loop must wait until this command is the one that runs.
        from forwards.worker import Worker
        from tunnelweb import server

        try:
            lock = None if options["no_worker"] else process.take_lock(settings.DATA_DIR)
        except process.DirectoryTaken as taken:
            raise CommandError(str(taken)) from None
        try:
            sockets = server.bind("0.0.0.0" if host == ANY_INTERFACE else host, port)  # noqa: S104 - asked for by name
        except server.PortTaken:
            raise CommandError(
                f"Port {port} on {host} is already in use. Stop the program that holds it, or choose another port "
                "with --port."
            ) from None
        except OSError as error:
            raise CommandError(f"Cannot listen on {host} port {port}: {error.strerror or error}.") from None
        process.raise_open_files()
        call_command("migrate", verbosity=0, interactive=False)
        link = self._link(host, sockets[0])
        worker = None if options["no_worker"] else Worker(settings.WORKER_NAME)

        def ready() -> None:
            self.stdout.write(f"Tunnelweb is ready. Sign in once with this link: {link}")
            self.stdout.flush()
            if not options["no_browser"] and _has_screen():
                webbrowser.open(link)

        from tunnelweb.asgi import application

        clean = server.serve(application, sockets, worker, ready)
        if lock:
            lock.close()
        if not clean:
            sys.exit(1)

    def _link(self, host: str, listening: socket.socket) -> str:
        shown = socket.gethostname() if is_every_interface(host) else host
        if shown not in settings.ALLOWED_HOSTS:
            settings.ALLOWED_HOSTS.append(f"[{shown}]" if ":" in shown else shown)
        path = reverse("sign-in-link", args=[signin.make_link_token(signin.owner())])
        return f"http://{join_host_port(shown, listening.getsockname()[1])}{path}"


def _has_screen() -> bool:
    """Whether opening a browser makes sense: a person at a terminal, with a desktop to show it on."""
    if not sys.stdout.isatty():
        return False
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
