"""The order in which ciphers are asked for."""

from __future__ import annotations

import asyncssh
import pytest

from forwards.engine import ciphers as module
from forwards.engine.ciphers import ciphers

AES = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"]
CHACHA = ["chacha20-poly1305@openssh.com"]


@pytest.fixture(autouse=True)
def measured_anew():
    ciphers.cache_clear()
    yield
    ciphers.cache_clear()


def faster(monkeypatch, *seconds: float) -> None:
    """Have the measurements, of AES-GCM and then of ChaCha20, come out as told."""
    times = iter(seconds)
    monkeypatch.setattr(module, "_seconds", lambda work: (work(), next(times))[1])


def test_aes_comes_first_where_it_is_faster(monkeypatch) -> None:
    faster(monkeypatch, 1, 2)

    assert ciphers()[:3] == AES + CHACHA


def test_chacha20_comes_first_where_it_is_faster(monkeypatch) -> None:
    faster(monkeypatch, 2, 1)

    assert ciphers()[:3] == CHACHA + AES


def test_it_is_measured_once(monkeypatch) -> None:
    faster(monkeypatch, 1, 2)

    assert ciphers() is ciphers()


def test_every_cipher_is_one_of_asyncsshs_own_defaults() -> None:
    known = {name.decode() for name in asyncssh.encryption.get_default_encryption_algs()}

    assert set(ciphers()) <= known
    assert len(ciphers()) == len(set(ciphers()))
    assert not any("cbc" in name or "arcfour" in name for name in ciphers())


def test_the_shortest_of_some_runs_counts(monkeypatch) -> None:
    ticks = iter([tick for seconds in (9, 3, 5) * 20 for tick in (0, seconds)])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks))

    assert module._seconds(lambda: None) == 3
