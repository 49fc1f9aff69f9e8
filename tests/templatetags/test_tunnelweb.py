import re

import pytest
from django import forms
from django.template import Context, Template

from forwards.templatetags.tunnelweb import icon, plain
from tests.conftest import REPOSITORY

SPRITE = (REPOSITORY / "static/vendor/tabler-icons/sprite.svg").read_text(encoding="utf-8")


class Example(forms.Form):
    name = forms.CharField(label="Name", help_text="What it is called")
    kind = forms.ChoiceField(label="Type", choices=[("a", "A")])
    sure = forms.BooleanField(label="Sure")


def drawn(name: str, form: forms.Form) -> str:
    return Template("{% load tunnelweb %}{% field bound 'extra' %}").render(Context({"bound": form[name]}))


@pytest.mark.parametrize("mark", ["\0", "\n", "\x1b", "\x9b", "\u202e", "\u2066", "\u200f", "\u2028"])
def test_what_nobody_sees_but_changes_what_is_seen_becomes_visible(mark: str) -> None:
    assert plain(f"safe{mark}gpj.exe") == "safe\N{REPLACEMENT CHARACTER}gpj.exe"


def test_text_of_any_script_stays_as_it_is() -> None:
    assert plain("ポート 端口 café שרת 🚇") == "ポート 端口 café שרת 🚇"


def test_an_icon_is_decoration_of_the_sprite() -> None:
    drawing = icon("server", "big")

    assert 'aria-hidden="true"' in drawing and 'class="icon big"' in drawing
    assert "tabler-icons/sprite.svg#server" in drawing


def test_every_icon_that_a_template_draws_is_in_the_sprite() -> None:
    templates = (REPOSITORY / "templates").rglob("*.html")
    used = {name for path in templates for name in re.findall(r'{% icon "([\w-]+)"', path.read_text(encoding="utf-8"))}

    assert len(used) > 10
    assert {name for name in used if f'id="{name}"' not in SPRITE} == set()


def test_a_field_is_drawn_with_its_label_and_help() -> None:
    html = drawn("name", Example())

    assert 'for="id_name"' in html and 'id="id_name"' in html
    assert "What it is called" in html and "form-control" in html
    assert "is-invalid" not in html


def test_a_wrong_field_says_why_and_names_its_error_for_screen_readers() -> None:
    html = drawn("name", Example({}))

    assert "is-invalid" in html and "This field is required." in html
    assert 'id="id_name_error"' in html
    assert 'aria-invalid="true"' in html


@pytest.mark.parametrize(("name", "look"), [("kind", "form-select"), ("sure", "form-check-input")])
def test_each_kind_of_field_has_its_look(name: str, look: str) -> None:
    assert look in drawn(name, Example())
