from __future__ import annotations

import os
import subprocess

import pytest

from forwards.engine.keys import MAX_KEY_BYTES, import_key, read_key_file
from forwards.engine.specs import SpecError
from tests.sshd import keygen, public_key


@pytest.fixture
def key(tmp_path):
    return keygen(tmp_path / "key")


def refused(function, *args) -> str:
    with pytest.raises(SpecError) as error:
        function(*args)
    return error.value.code


def test_a_key_file_is_read(key) -> None:
    assert read_key_file(str(key)) == key.read_text()


def test_a_tilde_is_the_home_of_the_account(key, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(key.parent))

    assert read_key_file("~/key") == key.read_text()


def test_a_symbolic_link_to_a_key_file_is_followed(key) -> None:
    (key.parent / "link").symlink_to(key)

    assert read_key_file(str(key.parent / "link")) == key.read_text()


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path) -> None:
    os.mkfifo(tmp_path / "fifo")

    assert refused(read_key_file, str(tmp_path / "fifo")) == "key_file_unusable"


@pytest.mark.parametrize(
    "path", ["", "/", "/dev/zero", "/dev/tty", "/no/such", "a\0b", "\ud800", "x" * 5000, "/dev/fd"]
)
def test_what_is_no_regular_file_is_refused_with_the_same_words(path) -> None:
    assert refused(read_key_file, path) == "key_file_unusable"


def test_a_huge_or_a_binary_file_is_refused_with_the_same_words(tmp_path) -> None:
    (tmp_path / "huge").write_bytes(b"x" * (MAX_KEY_BYTES + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")

    assert refused(read_key_file, str(tmp_path / "huge")) == "key_file_unusable"
    assert refused(read_key_file, str(tmp_path / "binary")) == "key_file_unusable"


def test_refusing_leaves_no_file_open(tmp_path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        refused(read_key_file, str(tmp_path))

    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
@pytest.mark.parametrize("passphrase", ["", "open sesame"])
def test_keys_of_every_kind_are_imported_locked_or_not(tmp_path, kind, passphrase) -> None:
    path = keygen(tmp_path / "key", kind=kind, passphrase=passphrase)

    imported = import_key(path.read_text(), passphrase)

    assert imported.export_public_key().decode().split()[:2] == public_key(path).split()


@pytest.mark.parametrize("form", ["PEM", "PKCS8"])
def test_older_forms_are_imported_and_tell_a_missing_passphrase_from_a_wrong_one(tmp_path, form) -> None:
    path = keygen(tmp_path / "key", kind="rsa")
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-m", form, "-P", "", "-N", "sesame", "-f", str(path)], check=True, timeout=60
    )
    text = path.read_text()

    assert import_key(text, "sesame")
    assert refused(import_key, text, "") == "key_passphrase"
    assert refused(import_key, text, "wrong") == "key_passphrase_wrong"


def test_a_locked_key_tells_a_missing_passphrase_from_a_wrong_one(tmp_path) -> None:
    text = keygen(tmp_path / "key", passphrase="sesame").read_text()

    assert refused(import_key, text) == "key_passphrase"
    assert refused(import_key, text, "wrong") == "key_passphrase_wrong"


def test_a_passphrase_nobody_needs_does_no_harm(key) -> None:
    assert import_key(key.read_text(), "superfluous")


def test_a_pasted_key_may_have_windows_line_ends_a_mark_and_blanks_around(key) -> None:
    assert import_key("\ufeff\r\n  " + key.read_text().replace("\n", "\r\n") + "\r\n ")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "key_invalid"),
        ("hello", "key_invalid"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "key_invalid"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none", "key_ppk"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me", "key_public"),
        ("---- BEGIN SSH2 PUBLIC KEY ----", "key_public"),
        ("x" * (MAX_KEY_BYTES + 1), "key_too_large"),
        ("\0\ud800", "key_invalid"),
    ],
)
def test_a_pasted_text_that_is_no_private_key_is_told_apart(text, code) -> None:
    assert refused(import_key, text) == code


def test_half_a_key_is_refused(key) -> None:
    text = key.read_text()

    assert refused(import_key, text[: len(text) // 2]) == "key_invalid"
    assert refused(import_key, text[: len(text) // 2], "phrase") == "key_invalid"
