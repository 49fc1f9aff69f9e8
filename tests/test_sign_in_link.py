from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from forwards import signin

pytestmark = pytest.mark.django_db


def link(**options: str) -> str:
    out = StringIO()
    call_command("sign_in_link", stdout=out, **options)
    return out.getvalue().strip()


def test_the_link_signs_in_the_owner_once() -> None:
    printed = link(address="http://localhost:8123/")

    assert printed.startswith("http://localhost:8123/sign-in/")
    token = printed.removesuffix("/").rpartition("/")[2]
    assert signin.redeem(token) == signin.owner()
    assert signin.redeem(token) is None


def test_a_link_for_somebody_else_is_for_them() -> None:
    ann = User.objects.create_user("ann")

    token = link(user="ann").removesuffix("/").rpartition("/")[2]
    assert signin.redeem(token) == ann


def test_nobody_unknown_or_inactive_gets_a_link() -> None:
    User.objects.create_user("gone", is_active=False)

    for name in ("gone", "never-was"):
        with pytest.raises(CommandError, match=f"no active user called {name}"):
            link(user=name)
