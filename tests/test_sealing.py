import pytest
from cryptography.fernet import Fernet

from forwards.sealing import SealBroken, seal, unseal


@pytest.mark.parametrize("text", ["s3cret", "пароль 🔑", "-----BEGIN\nline\n", " ", "x" * 70000])
def test_what_was_sealed_is_opened_again(text) -> None:
    token = seal(text)

    assert unseal(token) == text
    assert text.strip() == "" or text not in token


def test_the_same_secret_is_sealed_differently_each_time() -> None:
    assert seal("s3cret") != seal("s3cret")


def test_no_secret_stays_no_secret() -> None:
    assert seal("") == ""
    assert unseal("") == ""


def test_another_key_opens_nothing(settings) -> None:
    token = seal("s3cret")
    settings.SEALING_KEYS = [Fernet.generate_key().decode()]

    with pytest.raises(SealBroken):
        unseal(token)


def test_a_key_can_be_replaced_while_the_old_one_is_kept_for_reading(settings) -> None:
    token = seal("s3cret")
    settings.SEALING_KEYS = [Fernet.generate_key().decode(), *settings.SEALING_KEYS]

    assert unseal(token) == "s3cret"


@pytest.mark.parametrize("token", ["x", "gAAAAA", "ключ", "\0"])
def test_garbage_is_a_broken_seal_and_nothing_worse(token) -> None:
    with pytest.raises(SealBroken):
        unseal(token)


def test_a_changed_token_is_a_broken_seal() -> None:
    token = seal("s3cret")

    with pytest.raises(SealBroken):
        unseal(token[:-2] + ("AA" if not token.endswith("AA") else "BB"))
