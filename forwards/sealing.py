"""Secrets at rest: sealed with a key that is not in the database."""

from functools import cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings


class SealBroken(Exception):
    """A stored secret cannot be opened: the sealing key is another one than it was sealed with."""


@cache
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


def seal(text: str) -> str:
    """Return `text` encrypted and authenticated; the empty string stays empty, meaning no secret."""
    return _fernet(tuple(settings.SEALING_KEYS)).encrypt(text.encode()).decode("ascii") if text else ""


def unseal(token: str) -> str:
    """Return what was sealed. Raises SealBroken."""
    if not token:
        return ""
    try:
        return _fernet(tuple(settings.SEALING_KEYS)).decrypt(token.encode()).decode()
    except InvalidToken:
        raise SealBroken from None
