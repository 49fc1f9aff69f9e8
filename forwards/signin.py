"""One-time sign-in links: made on the machine Tunnelweb runs on, opened once in a browser."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from forwards.models import SignInToken

LINK_LIVES = timedelta(days=7)
OWNER = "owner"


def _hash(token: str) -> str:
    # A token holds 256 random bits, so a fast hash is as good as a slow one.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def make_link_token(user: User) -> str:
    """Return a token that signs in as `user` once, within LINK_LIVES. Their older ones end."""
    token = secrets.token_urlsafe(32)
    with transaction.atomic():
        SignInToken.objects.filter(user=user).delete()
        SignInToken.objects.create(user=user, token_hash=_hash(token))
    return token


def redeem(token: str) -> User | None:
    """Return the user a token signs in, and end the token; None if it is unknown, used, replaced or too old.

    Of several callers with the same token one gets the user: the one whose delete found the row.
    """
    fresh = SignInToken.objects.filter(token_hash=_hash(token), created_at__gt=timezone.now() - LINK_LIVES)
    row = fresh.select_related("user").first()
    if row is None or not row.user.is_active:
        return None
    deleted, _ = fresh.delete()
    return row.user if deleted else None


def owner() -> User:
    """Return the first active superuser, made (without a password) if there is none.

    An account called “owner” that is no superuser stays what it is: the new one takes the next free name.
    """
    found = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
    if found is not None:
        return found
    names = itertools.chain([OWNER], (f"{OWNER}{number}" for number in itertools.count(2)))
    free = next(name for name in names if not User.objects.filter(username=name).exists())
    return User.objects.create_superuser(free)
