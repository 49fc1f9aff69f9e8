"""Host keys: trusted by a person on first use, strict from then on."""

from __future__ import annotations

import asyncssh

# Plain keys only: a host certificate would be negotiated first and then refused, because no CA is trusted here.
# Modern ones first, ssh-rsa with SHA-1 left out.
_ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
_RSA = ("rsa-sha2-512", "rsa-sha2-256")


def public_text(key: asyncssh.SSHKey) -> str:
    """Return a key in OpenSSH's public form without comment: `ssh-ed25519 AAAA…`."""
    algorithm, base64 = key.export_public_key("openssh").decode("ascii").split()[:2]
    return f"{algorithm} {base64}"


def fingerprint(public_key: str) -> str:
    """Return `SHA256:…` as `ssh-keygen -l` prints it, for a key in OpenSSH's public form."""
    return asyncssh.import_public_key(public_key).get_fingerprint("sha256")


def wanted_algorithms(trusted: tuple[str, ...]) -> list[str]:
    """Return the host key algorithms to offer: those of trusted keys first, then all the others.

    Offering only the trusted ones would make a server whose key type changed look like one without a common
    algorithm; so it is asked for any, and what it presents is compared.
    """
    known: list[str] = []
    for public_key in trusted:
        algorithm = public_key.partition(" ")[0]
        known += _RSA if algorithm == "ssh-rsa" else [algorithm]
    return [name for name in dict.fromkeys(known) if name in _ALGORITHMS] + [
        name for name in _ALGORITHMS if name not in known
    ]


class HostKeyCheck:
    """Decides on the one key a server presents. `presented` holds it, in public form, when it was refused."""

    def __init__(self, trusted: tuple[str, ...]) -> None:
        self._trusted = frozenset(trusted)
        self.presented = ""

    @property
    def knows_another(self) -> bool:
        """Whether a key was trusted before: then a refused one is a change, not a first contact."""
        return bool(self._trusted)

    def accepts(self, key: asyncssh.SSHKey) -> bool:
        """Say whether `key` is one of the trusted; asked by asyncssh for every key, as none is passed to it."""
        text = public_text(key)
        if text in self._trusted:
            return True
        self.presented = text
        return False
