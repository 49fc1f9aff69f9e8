"""Forms of the dialogs; the admin uses ForwardForm and ServerForm too.

What a value must look like is said by the models; what a form adds is what only a person can answer: secrets, and
whether to save although another forward wants the same port.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from forwards import services
from forwards.engine.keys import import_key, read_key_file
from forwards.engine.specs import SpecError
from forwards.fields import PortFormField
from forwards.models import AuthMethod, Forward, ForwardKind, Server, ServerStatus
from forwards.reasons import sentence
from forwards.sealing import SealBroken, unseal

REMOTE_SIDE = ("remote_host", "remote_port")
# What decides where a forward listens; with none of it changed, the question was answered before.
LISTENING = {"kind", "server", "local_host", "local_port", "remote_host", "remote_port"}


class ForwardForm(forms.ModelForm):
    """A forward. One that wants a port another forward wants comes back once, with a box to tick."""

    save_anyway = forms.BooleanField(label=gettext_lazy("Save it anyway"), required=False)

    class Meta:
        model = Forward
        fields = ("name", "kind", "server", "local_host", "local_port", "remote_host", "remote_port", "probe")

    overlapping: list[Forward]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.overlapping = []
        if isinstance(server := self.fields["server"], forms.ModelChoiceField):
            if not self.instance.pk and len(only := Server.objects.values_list("pk", flat=True)[:2]) == 1:
                self.initial.setdefault("server", only[0])
            server.empty_label = None if self.initial.get("server") else _("Choose a server")

    def _clean_fields(self) -> None:
        super()._clean_fields()  # type: ignore[misc]
        if self.cleaned_data.get("kind") == ForwardKind.DYNAMIC:
            # These fields are not shown for this type, so what is in them cannot be wrong.
            for name in REMOTE_SIDE:
                self.errors.pop(name, None)
                self.cleaned_data[name] = None if name == "remote_port" else ""

    def _post_clean(self) -> None:
        # The model makes the listening address what it will be stored as; only then can it be compared.
        super()._post_clean()  # type: ignore[misc]
        if self.errors or (self.instance.pk and not LISTENING & {*self.changed_data}):
            return
        self.overlapping = list(Forward.objects.overlapping(self.instance))
        if self.overlapping and not self.cleaned_data.get("save_anyway"):
            self.add_error("save_anyway", self._overlap_warning())

    def _overlap_warning(self) -> ValidationError:
        names = ", ".join(f"“{forward.name}”" for forward in self.overlapping[:5])
        text = _("The same listening address is wanted by %(names)s. Only one of them can run at a time.")
        return ValidationError(text % {"names": names}, code="overlap")


class TakePortForm(forms.Form):
    port = PortFormField(listening=True)


class WriteOnlyTextarea(forms.Textarea):
    """A text area that never shows what it is bound to."""

    def format_value(self, value: Any) -> None:
        return None


class SecretField(forms.CharField):
    """A secret: taken exactly as typed, never rendered back."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("widget", forms.PasswordInput(attrs={"autocomplete": "new-password"}))
        super().__init__(required=False, strip=False, **kwargs)


class ServerForm(forms.ModelForm):
    """A server and its secrets. An empty secret keeps the stored one; another way to sign in removes the others'.

    `save(commit=False)` leaves the secrets sealed on the instance, ready for services.save_server().
    """

    key_text = SecretField(
        label=gettext_lazy("Private key"),
        widget=WriteOnlyTextarea(attrs={"rows": 5, "spellcheck": "false", "autocomplete": "off"}),
    )
    passphrase = SecretField(label=gettext_lazy("Passphrase"), max_length=1024)
    forget_passphrase = forms.BooleanField(label=gettext_lazy("Remove the stored passphrase"), required=False)
    password = SecretField(label=gettext_lazy("Password"), max_length=1024)

    class Meta:
        model = Server
        fields = (
            "name",
            "host",
            "port",
            "user",
            "auth",
            "key_path",
            "key_text",
            "passphrase",
            "forget_passphrase",
            "password",
            "proxy_jump",
            "keepalive_interval",
            "keepalive_count_max",
            "connect_timeout",
        )

    # What each way to sign in needs; the secrets that are not in its list are removed.
    NEEDS = {
        AuthMethod.AGENT: (),
        AuthMethod.KEY_FILE: ("passphrase",),
        AuthMethod.KEY_TEXT: ("key_text", "passphrase"),
        AuthMethod.PASSWORD: ("password",),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(jump := self.fields["proxy_jump"], forms.ModelChoiceField):
            jump.empty_label = _("None: connect directly")
            jump.queryset = Server.objects.exclude(pk=self.instance.pk)
        for name in ("key_text", "passphrase", "password"):
            if self.instance.has_secret(name):
                self.fields[name].widget.attrs["placeholder"] = _("stored — leave empty to keep")
        if not self.instance.has_secret("passphrase"):
            del self.fields["forget_passphrase"]

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        auth = values.get("auth")
        if auth == AuthMethod.PASSWORD and not self._secret("password"):
            self.add_error("password", _("Enter the password."))
        elif auth == AuthMethod.KEY_TEXT and "key_text" in values:
            values["key_text"] = _normalised(values["key_text"])
            if text := self._secret("key_text"):
                self._check_key(text, "key_text")
            else:
                self.add_error("key_text", _("Paste the private key."))
        elif auth == AuthMethod.KEY_FILE and "key_path" in values:
            self._check_key_file(values["key_path"])
        return values

    def _secret(self, name: str) -> str:
        """Return the secret as it will be: as typed, else as stored."""
        if typed := self.cleaned_data.get(name):
            return str(typed)
        if name == "passphrase" and self.cleaned_data.get("forget_passphrase"):
            return ""
        try:
            return unseal(getattr(self.instance, f"{name}_sealed"))
        except SealBroken:
            return ""

    def _check_key_file(self, path: str) -> None:
        if not path:
            self.add_error("key_path", _("Enter the path of the key file."))
            return
        try:
            text = read_key_file(path)
        except SpecError as error:
            self.add_error("key_path", sentence(error.code, error.params))
            return
        self._check_key(text, "key_path")

    def _check_key(self, text: str, name: str) -> None:
        try:
            import_key(text, self._secret("passphrase"))
        except SpecError as error:
            field = "passphrase" if error.code.startswith("key_passphrase") else name
            code = error.code
            if name == "key_path" and code == "key_invalid":
                # What is no key gets the same answer as what is no file, so that a path tells nothing about files.
                code = "key_file_unusable"
            self.add_error(field, sentence(code, {"server": self.cleaned_data.get("name", ""), **error.params}))

    def save(self, commit: bool = True) -> Server:
        if self.errors:
            return super().save(commit=commit)  # which refuses
        values = self.cleaned_data
        needed = self.NEEDS[AuthMethod(values["auth"])]
        for name in ("key_text", "passphrase", "password"):
            if name not in needed or (name == "passphrase" and values.get("forget_passphrase") and not values[name]):
                self.instance.set_secret(name, "")
            elif values[name]:
                self.instance.set_secret(name, values[name])
        if values["auth"] != AuthMethod.KEY_FILE:
            self.instance.key_path = ""
        return super().save(commit=commit)


def _normalised(key: str) -> str:
    """Return a pasted key with the line ends and the last line that every reader of keys expects."""
    stripped = key.replace("\r\n", "\n").strip("\ufeff \t\r\n")
    return f"{stripped}\n" if stripped else ""


class AcceptKeyForm(forms.Form):
    """A person's word that a changed host key was compared with the one on the server itself."""

    fingerprint = forms.CharField(widget=forms.HiddenInput)
    compared = forms.BooleanField(
        label=gettext_lazy("I have compared the new fingerprint with the one on the server, and they are the same."),
        error_messages={"required": gettext_lazy("Compare the fingerprints first, then tick this box.")},
    )

    def __init__(self, data: Any = None, *, server: Server, by: User | None) -> None:
        self.server, self.by = server, by
        try:
            self.status: ServerStatus | None = server.status
        except ObjectDoesNotExist:
            self.status = None
        super().__init__(data, initial={"fingerprint": self.presented})

    @property
    def presented(self) -> str:
        """The fingerprint that waits for trust; empty when the server shows none, or another machine showed it."""
        if self.status is None or self.status.presented_by != self.server.address:
            return ""
        if any(key.public_key == self.status.presented_key for key in self.server.host_keys.all()):
            return ""
        return self.status.presented_fingerprint

    def accept(self) -> bool:
        """Trust the new key in place of the old ones; False, with an error, when it is another one by now."""
        try:
            services.trust_host_key(self.server, self.cleaned_data["fingerprint"], self.by, replace=True)
        except services.FingerprintMismatch:
            # The page that comes back shows the key of now, to be compared anew.
            self.data = {"fingerprint": self.presented}
            self.add_error(None, _("The server shows another key by now. Compare again."))
            return False
        return True
