"""Model fields whose form fields refuse what the engine would refuse, in the page and in the admin alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import models

from forwards.engine import specs
from forwards.reasons import sentence


def checked(parse: Callable[..., Any], value: Any, **options: Any) -> Any:
    """Return `parse(value)`, its SpecError turned into a ValidationError in words."""
    try:
        return parse(value, **options)
    except specs.SpecError as error:
        raise ValidationError(sentence(error.code, error.params), code=error.code) from None


class PortFormField(forms.CharField):
    """A port as people type it: ASCII digits only, where int() would take `２２` and `1_0` too."""

    def __init__(self, *, listening: bool = True, **kwargs: Any) -> None:
        for unused in ("min_value", "max_value"):
            kwargs.pop(unused, None)
        kwargs.setdefault("widget", forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}))
        super().__init__(**kwargs)
        self.listening = listening

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        return None if text in self.empty_values else checked(specs.parse_port, text, listening=self.listening)

    def has_changed(self, initial: Any, data: Any) -> bool:
        return str("" if initial is None else initial) != str("" if data is None else data).strip()


class PortField(models.PositiveIntegerField):
    """A TCP port, 0 to 65535; whether 0 is sensible depends on which end listens and is checked in clean()."""

    def formfield(self, **kwargs: Any) -> Any:
        return super().formfield(**{"form_class": PortFormField, "widget": None, **kwargs})

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        port = super().clean(value, model_instance)
        return port if port is None else checked(specs.parse_port, port, listening=True)
