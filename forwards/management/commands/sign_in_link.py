"""`manage.py sign_in_link`: a new one-time link, when the one `serve` printed was used."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.urls import reverse

from forwards import signin


class Command(BaseCommand):
    help = "Print a one-time sign-in link. Older links of the same user end."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", help="who signs in with it (default: the owner)")
        parser.add_argument("--address", default="http://localhost:8000", help="where the dashboard is opened")

    def handle(self, *args: Any, **options: Any) -> None:
        user = signin.owner()
        if options["user"]:
            found = User.objects.filter(username=options["user"], is_active=True).first()
            if found is None:
                raise CommandError(f"There is no active user called {options['user']}.")
            user = found
        path = reverse("sign-in-link", args=[signin.make_link_token(user)])
        self.stdout.write(f"{options['address'].rstrip('/')}{path}")
