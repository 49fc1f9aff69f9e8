import pytest
from django import forms
from django.core.exceptions import ValidationError

from forwards.engine import specs
from forwards.fields import PortField, PortFormField, checked
from forwards.models import Forward

BAD = ["70000", "65536", "-1", "２２", "1e3", "22x", "0x16", "1_0", "2 2", "22.0", "٢٢", "\0", "22\n\n1", "9" * 5000]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_port_is_refused(text) -> None:
    with pytest.raises(ValidationError):
        PortFormField().clean(text)


@pytest.mark.parametrize(("text", "port"), [("22", 22), (" 22 ", 22), ("0", 0), ("65535", 65535), ("00080", 80)])
def test_a_port_is_a_number_in_ascii_digits(text, port) -> None:
    assert PortFormField().clean(text) == port


def test_a_port_that_must_be_given_is_asked_for() -> None:
    with pytest.raises(ValidationError) as caught:
        PortFormField().clean("")
    assert caught.value.code == "required"
    assert PortFormField(required=False).clean("  ") is None


def test_port_zero_is_refused_where_nothing_listens() -> None:
    with pytest.raises(ValidationError) as caught:
        PortFormField(listening=False).clean("0")
    assert caught.value.messages == ["Enter a port between 1 and 65535, in digits."]


def test_a_field_left_as_it_was_has_not_changed() -> None:
    field = PortFormField()

    assert not field.has_changed(22, "22 ")
    assert not field.has_changed(None, "")
    assert field.has_changed(22, "23")
    assert field.has_changed(22, "２２")


def test_every_form_made_from_the_model_has_the_strict_field() -> None:
    form = forms.modelform_factory(Forward, fields=["local_port", "remote_port"])()

    assert {type(field) for field in form.fields.values()} == {PortFormField}
    assert form.fields["local_port"].required
    assert not form.fields["remote_port"].required


@pytest.mark.parametrize("value", [-1, 65536, 70000, "1e3"])
def test_the_model_field_refuses_what_the_form_refuses(value) -> None:
    with pytest.raises(ValidationError):
        PortField().clean(value, None)


def test_the_error_of_a_spec_comes_in_words_with_its_code() -> None:
    with pytest.raises(ValidationError) as caught:
        checked(specs.parse_host, "a..b")
    assert caught.value.code == "host_invalid"
    assert caught.value.messages == ["This is not a host name or an IP address."]
