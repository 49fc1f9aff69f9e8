"""Tags and filters of Tunnelweb's own templates."""

from __future__ import annotations

import re
from functools import cache

from django import forms, template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()

# C0, C1 and the marks that turn the direction of text: they can make a name look like another one.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@register.simple_tag
@cache
def icon(name: str, extra: str = "") -> SafeString:
    """Draw one icon of the sprite. It is decoration: what it stands for must be said in words beside it."""
    sprite = static("vendor/tabler-icons/sprite.svg")
    return format_html(
        '<svg class="icon {}" aria-hidden="true" focusable="false"><use href="{}#{}"></use></svg>', extra, sprite, name
    )


@register.filter
def plain(text: object) -> str:
    """Replace control characters and direction marks in text from people or servers by a visible sign."""
    return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", str(text))


@register.inclusion_tag("forms/field.html")
def field(bound: forms.BoundField, css: str = "") -> dict[str, object]:
    """Draw a form field with its label, help and errors."""
    widget = bound.field.widget
    if isinstance(widget, forms.CheckboxInput):
        look = "form-check-input"
    elif isinstance(widget, forms.Select):
        look = "form-select"
    else:
        look = "form-control"
    invalid = " is-invalid" if bound.errors else ""
    return {
        "bound": bound,
        "css": css,
        "checkbox": look == "form-check-input",
        "widget": bound.as_widget(attrs={"class": look + invalid}),
    }
