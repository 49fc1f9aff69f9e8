"""One-time sign-in links."""

from django.conf import settings
from django.db import models


class SignInToken(models.Model):
    """A one-time sign-in link, stored as the hash of its token."""

    token_hash = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"sign-in link of {self.user}"
