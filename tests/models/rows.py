"""Inputs no host or port may be, and what a row that holds one complains of."""

import pytest
from django.core.exceptions import ValidationError

from forwards.models import Forward, Server

BAD_HOSTS = [
    "a..b", "a b", "a\nb", "a\0b", "\ud800", "x" * 300, "-oProxyCommand=x", "$(id)", "<img onerror>", "1.2.3",
    "256.1.1.1", "::1::", "[host]", "a/b", "user@host", ".", "-", "a_.b-", "fe80::1%", "ﬀ..x",
]  # fmt: skip
BAD_PORTS = [-1, 65536, 70000]


def errors_of(row: Server | Forward) -> set[str]:
    with pytest.raises(ValidationError) as caught:
        row.full_clean()
    return set(caught.value.error_dict)
