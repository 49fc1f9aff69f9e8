from pathlib import Path

from django.conf import settings

from tunnelweb import data


def test_keys_are_made_once_and_for_this_account_only(tmp_path: Path) -> None:
    first = data.sealing_key(tmp_path), data.signing_key(tmp_path)

    assert (data.sealing_key(tmp_path), data.signing_key(tmp_path)) == first
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


def test_the_data_directory_is_closed_to_other_accounts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TUNNELWEB_DATA", str(tmp_path / "new" / "deep"))
    assert data.data_dir().stat().st_mode & 0o777 == 0o700

    (tmp_path / "open").mkdir(mode=0o755)
    monkeypatch.setenv("TUNNELWEB_DATA", str(tmp_path / "open"))
    assert data.data_dir().stat().st_mode & 0o777 == 0o700


def test_tests_run_on_a_data_directory_of_their_own() -> None:
    assert settings.DATA_DIR.name.startswith("tunnelweb-test-")
