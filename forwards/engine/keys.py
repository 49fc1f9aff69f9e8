"""Private keys: reading a key file without hanging, and telling what is wrong with a pasted key."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from forwards.engine.specs import SpecError

if TYPE_CHECKING:
    from asyncssh import SSHKey

MAX_KEY_BYTES = 64 * 1024


def read_key_file(path: str) -> str:
    """Return the text of a private key file; `~` is the home of the account Tunnelweb runs as.

    Raises SpecError("key_file_unusable") for whatever is not a readable regular file of at most 64 KB. There is one
    error for all of them, so that a path is no way to find out what files exist. Never blocks: a FIFO or a device is
    opened without waiting and refused before a byte is read.
    """
    refusal = SpecError("key_file_unusable")
    if not path or "\0" in path:
        raise refusal
    try:
        descriptor = os.open(os.path.expanduser(path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError):  # ValueError: a lone surrogate
        raise refusal from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_KEY_BYTES:
            raise refusal
        # Not fdopen(): it raises for a directory, and leaves the descriptor open.
        return os.read(descriptor, MAX_KEY_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise refusal from None
    finally:
        os.close(descriptor)


def import_key(text: str, passphrase: str = "") -> SSHKey:
    """Return the private key that `text` holds, in OpenSSH or PEM form.

    Raises SpecError: `key_too_large`, `key_ppk` (PuTTY), `key_public`, `key_invalid` (broken, cut off),
    `key_passphrase` (locked, none given) or `key_passphrase_wrong`.
    """
    # asyncssh costs 40 MB: the web process pays only when somebody pastes a key.
    from asyncssh import KeyEncryptionError, KeyImportError, import_private_key

    stripped = text.strip("\ufeff \t\r\n")
    if len(stripped) > MAX_KEY_BYTES:
        raise SpecError("key_too_large")
    if stripped.startswith("PuTTY-User-Key-File-"):
        raise SpecError("key_ppk")
    if stripped.startswith(("ssh-", "ecdsa-", "sk-", "-----BEGIN PUBLIC", "---- BEGIN SSH2 PUBLIC")):
        raise SpecError("key_public")
    try:
        return import_private_key(stripped + "\n", passphrase or None)
    except KeyEncryptionError:
        raise SpecError("key_passphrase_wrong" if passphrase else "key_passphrase") from None
    except (KeyImportError, ValueError) as error:
        # Some formats call a wrong passphrase a broken key: whether it is locked shows without one.
        if _is_locked(stripped) if passphrase else "passphrase" in str(error).lower():
            raise SpecError("key_passphrase_wrong" if passphrase else "key_passphrase") from None
        raise SpecError("key_invalid") from None


def _is_locked(text: str) -> bool:
    try:
        import_key(text)
    except SpecError as error:
        return error.code == "key_passphrase"
    return False
