"""The data directory: where the database and the secret keys live, for this account only."""

import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet
from platformdirs import user_data_path


def data_dir() -> Path:
    """Return the data directory, made with mode 0700 if it is not there yet.

    `TUNNELWEB_DATA` names it; without that it is the platform's own place for an application's data.
    Raises OSError when it can be neither used nor made.
    """
    named = os.environ.get("TUNNELWEB_DATA")
    path = Path(named).expanduser().absolute() if named else user_data_path("tunnelweb", appauthor=False)
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077 and path.stat().st_uid == os.getuid():
        path.chmod(0o700)
    return path


def _read_or_make(path: Path, make: str) -> str:
    """Return the text of a key file, first writing `make` into it (mode 0600) when there is none."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(make + "\n")
        file.flush()
        os.fsync(file.fileno())
    return make


def signing_key(directory: Path) -> str:
    """Return Django's SECRET_KEY (signs sessions and tokens), made on first use."""
    return _read_or_make(directory / "signing.key", secrets.token_urlsafe(48))


def sealing_key(directory: Path) -> str:
    """Return the Fernet key that seals stored secrets, made on first use. Without it they are lost."""
    return _read_or_make(directory / "sealing.key", Fernet.generate_key().decode("ascii"))
