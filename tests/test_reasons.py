import re
from string import Formatter

import pytest

from forwards.reasons import SENTENCES, sentence
from tests.conftest import REPOSITORY

NAMES = re.compile(r"%\((\w+)\)s")


@pytest.mark.parametrize("code", SENTENCES)
def test_every_reason_is_a_sentence_that_takes_its_parameters(code) -> None:
    text = sentence(code, {name: f"<{name}>" for name in NAMES.findall(SENTENCES[code])})

    assert text[0].isupper() or text.startswith("<")
    assert text.endswith((".", ">", "”."))
    assert "%" not in text
    assert all(f"<{name}>" in text for name in NAMES.findall(SENTENCES[code]))


@pytest.mark.parametrize("code", SENTENCES)
def test_no_sentence_uses_a_placeholder_of_another_kind(code) -> None:
    assert not re.search(r"%(?!\(\w+\)s)", SENTENCES[code])
    assert all(name is None for _, name, _, _ in Formatter().parse(SENTENCES[code]))


def test_more_parameters_than_the_sentence_needs_do_no_harm() -> None:
    assert sentence("host_missing", {"port": 1}) == "Enter a host name or an IP address."


def test_a_jump_hosts_own_reason_becomes_the_detail() -> None:
    params = {"jump": "Bastion", "server": "Bastion", "user": "me", "detail_code": "auth_failed_password"}

    assert sentence("jump_failed", params).startswith("Jump host Bastion: Bastion refused the password of me.")


def test_text_of_a_server_is_never_taken_for_a_placeholder() -> None:
    assert "%(user)s 100%" in sentence("connection_lost", {"server": "A", "detail": "%(user)s 100%"})


USED = re.compile(r"""(?:Problem|EngineError|SpecError|sentence)\(\s*"(\w+)\"""")


def test_every_reason_named_in_the_code_has_a_sentence() -> None:
    """A code without one is a row that cannot be drawn, on the day it happens to somebody."""
    sources = (path.read_text(encoding="utf-8") for path in (REPOSITORY / "forwards").rglob("*.py"))
    used = {code for text in sources for code in USED.findall(text)}

    assert len(used) > 20
    assert used - SENTENCES.keys() == set()


def test_a_stored_reason_of_another_version_breaks_no_page() -> None:
    assert sentence("no_such_code") == "Something went wrong (no_such_code)."
    assert sentence("port_in_use", {}) == "Something went wrong (port_in_use)."
