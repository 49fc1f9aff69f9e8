import os
import resource
import time

import asyncssh
import pytest

from forwards.forms import ForwardForm, ServerForm, TakePortForm
from forwards.models import Forward, ForwardKind, Server
from forwards.sealing import unseal

pytestmark = pytest.mark.django_db

KEY = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
LOCKED = asyncssh.generate_private_key("ssh-ed25519").export_private_key(passphrase="open").decode()


@pytest.fixture
def server() -> Server:
    return Server.objects.create(name="My VPS", host="vps.example.com", user="deploy")


def forward_form(server: Server, instance: Forward | None = None, **changes: object) -> ForwardForm:
    typed = {
        "name": "MySQL",
        "kind": "local",
        "server": server.pk,
        "local_host": "127.0.0.1",
        "local_port": "3307",
        "remote_host": "127.0.0.1",
        "remote_port": "3306",
        **changes,
    }
    return ForwardForm(typed, instance=instance)


def server_form(instance: Server | None = None, **changes: object) -> ServerForm:
    typed = {
        "name": "Box",
        "host": "box.example.com",
        "port": "22",
        "user": "me",
        "auth": "agent",
        "keepalive_interval": "15",
        "keepalive_count_max": "3",
        "connect_timeout": "15",
        **changes,
    }
    return ServerForm(typed, instance=instance)


def saved(**typed: object) -> Server:
    form = server_form(**typed)
    assert form.is_valid(), form.errors
    return form.save()


# Forwards


def test_a_whole_forward_is_accepted(server):
    form = forward_form(server)
    assert form.is_valid(), form.errors
    assert form.save().listen_address == ("127.0.0.1", 3307)


@pytest.mark.parametrize(
    "port", ["70000", "65536", "-1", "２２", "1e3", "", "1_0", "0x16", "22a", "99999999999999999999"]
)  # noqa: RUF001
@pytest.mark.parametrize("field", ["local_port", "remote_port"])
def test_a_port_that_is_none_is_refused_beside_its_field(server, field, port):
    form = forward_form(server, **{field: port})
    assert not form.is_valid()
    assert list(form.errors) == [field]


def test_port_0_is_for_the_listening_end_only(server):
    assert forward_form(server, local_port="0").is_valid()
    assert "remote_port" in forward_form(server, remote_port="0").errors
    assert forward_form(server, kind="remote", remote_port="0").is_valid()
    assert "local_port" in forward_form(server, kind="remote", local_port="0").errors


def test_spaces_around_a_port_are_not_worth_a_refusal(server):
    form = forward_form(server, local_port="22 ")
    assert form.is_valid(), form.errors
    assert form.cleaned_data["local_port"] == 22


@pytest.mark.parametrize(
    "host",
    ["a\0b", "a\nb", "a b", "a..b", "x" * 300, ".".join(["x" * 60] * 5), "-oProxyCommand=x", "$(id)", "1.2.3", "[x]"],
)
@pytest.mark.parametrize("field", ["local_host", "remote_host"])
def test_a_host_that_is_none_is_refused_beside_its_field(server, field, host):
    form = forward_form(server, **{field: host})
    assert not form.is_valid()
    assert list(form.errors) == [field]


@pytest.mark.parametrize(
    "host", ["::1", "[::1]", "fe80::1%eth0", "bücher.example", "xn--bcher-kva.example", "0.0.0.0", "*"]
)
def test_addresses_of_every_kind_can_be_listened_on(server, host):
    form = forward_form(server, local_host=host)
    assert form.is_valid(), form.errors


def test_an_empty_listening_address_means_loopback(server):
    form = forward_form(server, local_host="")
    assert form.is_valid(), form.errors
    assert form.save().local_host == "127.0.0.1"


def test_an_empty_destination_is_refused(server):
    assert "remote_host" in forward_form(server, remote_host="").errors


def test_a_dynamic_forward_has_no_remote_side_whatever_its_hidden_fields_hold(server):
    form = forward_form(server, kind="dynamic", remote_host="a..b", remote_port="70000")
    assert form.is_valid(), form.errors
    forward = form.save()
    assert (forward.remote_host, forward.remote_port) == ("", None)


def test_another_forward_on_the_same_address_comes_back_once_and_is_saved_anyway(server):
    Forward.objects.create(name="First", server=server, local_port=3307, remote_port=1)
    form = forward_form(server)
    assert not form.is_valid()
    assert list(form.errors) == ["save_anyway"]
    assert "“First”" in str(form.errors)
    assert forward_form(server, save_anyway="on").is_valid()


def test_a_forward_that_was_saved_anyway_is_not_asked_about_again_for_its_name(server):
    for name in ("First", "Second"):
        second = Forward.objects.create(name=name, server=server, local_port=3307, remote_port=3306)
    form = forward_form(server, instance=second, name="Renamed")
    assert form.is_valid(), form.errors
    assert not forward_form(server, instance=second, local_host="0.0.0.0").is_valid()


def test_every_interface_and_loopback_are_the_same_port(server):
    Forward.objects.create(name="First", server=server, local_host="0.0.0.0", local_port=3307, remote_port=1)
    assert forward_form(server).overlapping == []
    form = forward_form(server)
    form.is_valid()
    assert [forward.name for forward in form.overlapping] == ["First"]


def test_a_forward_does_not_overlap_with_itself_nor_with_port_0(server):
    forward = Forward.objects.create(name="MySQL", server=server, local_port=3307, remote_port=3306)
    assert forward_form(server, instance=forward).is_valid()
    Forward.objects.create(name="Any", server=server, local_port=0, remote_port=1)
    assert forward_form(server, local_port="0").is_valid()


def test_remote_forwards_overlap_per_server(server):
    other = Server.objects.create(name="Other", host="other.example", user="x")
    Forward.objects.create(name="R", kind=ForwardKind.REMOTE, server=server, local_port=1, remote_port=8080)
    assert not forward_form(server, kind="remote", remote_port="8080").is_valid()
    assert forward_form(other, kind="remote", remote_port="8080").is_valid()


def test_the_only_server_is_chosen_already_and_one_of_several_is_not(server):
    assert ForwardForm().initial["server"] == server.pk
    Server.objects.create(name="Other", host="other.example", user="x")
    assert "server" not in ForwardForm().initial


def test_a_taken_port_must_be_a_port():
    assert TakePortForm({"port": "6380"}).is_valid()
    assert not TakePortForm({"port": "70000"}).is_valid()


# Servers


def test_a_server_by_agent_needs_no_secret():
    form = server_form()
    assert form.is_valid(), form.errors
    assert form.save().auth == "agent"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", "0"),
        ("port", "70000"),
        ("port", ""),
        ("host", "a..b"),
        ("host", "a\nb"),
        ("host", ""),
        ("user", "a\nb"),
        ("user", "a\0b"),
        ("user", "u" * 256),
        ("user", ""),
        ("keepalive_interval", "0"),
        ("keepalive_count_max", "1e3"),
        ("connect_timeout", "301"),
        ("name", ""),
        ("auth", "none"),
    ],
)
def test_bad_input_is_refused_beside_its_field(field, value):
    form = server_form(**{field: value})
    assert not form.is_valid()
    assert list(form.errors) == [field]


def test_two_servers_cannot_share_a_name(server):
    assert "name" in server_form(name=server.name).errors


def test_a_password_is_needed_taken_as_typed_and_sealed():
    assert "password" in server_form(auth="password").errors
    form = server_form(auth="password", password="  with spaces ")
    assert form.is_valid(), form.errors
    stored = form.save()
    assert "with spaces" not in stored.password_sealed
    assert unseal(stored.password_sealed) == "  with spaces "


def test_an_empty_secret_keeps_the_stored_one():
    stored = saved(auth="password", password="first")
    form = server_form(instance=stored, auth="password", password="")
    assert form.is_valid(), form.errors
    assert unseal(form.save().password_sealed) == "first"


def test_another_way_to_sign_in_removes_the_secrets_of_the_others():
    stored = saved(auth="key_text", key_text=LOCKED, passphrase="open")
    assert stored.has_secret("key_text") and stored.has_secret("passphrase")
    form = server_form(instance=stored, auth="password", password="p")
    assert form.is_valid(), form.errors
    stored = form.save()
    assert [name for name in ("key_text", "passphrase", "password") if stored.has_secret(name)] == ["password"]
    form = server_form(instance=stored, auth="agent", password="typed and then hidden")
    assert form.is_valid(), form.errors
    assert not form.save().has_secret("password")


def test_saving_without_commit_leaves_the_secrets_on_the_instance():
    form = server_form(auth="password", password="p")
    assert form.is_valid(), form.errors
    unsaved = form.save(commit=False)
    assert unsaved.pk is None
    assert unseal(unsaved.password_sealed) == "p"


def test_a_pasted_key_is_checked_and_its_line_ends_are_mended():
    form = server_form(auth="key_text", key_text="\ufeff\n" + KEY.replace("\n", "\r\n").strip())
    assert form.is_valid(), form.errors
    assert unseal(form.save().key_text_sealed) == KEY


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Paste the private key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n", "PuTTY"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here", "public key"),
        (KEY[: len(KEY) // 2], "not a whole private key"),
        ("x" * 1_000_000, "too large"),
        ("hello", "not a whole private key"),
    ],
)
def test_what_is_no_usable_key_is_called_by_its_name(text, words):
    form = server_form(auth="key_text", key_text=text)
    assert not form.is_valid()
    assert list(form.errors) == ["key_text"]
    assert words in str(form.errors["key_text"])


def test_a_locked_key_wants_its_passphrase():
    assert "passphrase" in server_form(auth="key_text", key_text=LOCKED).errors
    assert "passphrase" in server_form(auth="key_text", key_text=LOCKED, passphrase="wrong").errors
    assert server_form(auth="key_text", key_text=LOCKED, passphrase="open").is_valid()


def test_a_stored_key_is_tried_with_a_new_passphrase():
    stored = saved(auth="key_text", key_text=LOCKED, passphrase="open")
    assert "passphrase" in server_form(instance=stored, auth="key_text", passphrase="wrong").errors
    assert server_form(instance=stored, auth="key_text", passphrase="").is_valid()


def test_a_stored_passphrase_can_be_removed():
    stored = saved(auth="key_text", key_text=LOCKED, passphrase="open")
    form = server_form(instance=stored, auth="key_text", key_text=KEY, forget_passphrase="on")
    assert form.is_valid(), form.errors
    assert not form.save().has_secret("passphrase")
    assert "forget_passphrase" not in server_form(instance=stored).fields


def test_a_key_file_is_read_and_checked(tmp_path):
    path = tmp_path / "key"
    path.write_text(KEY)
    form = server_form(auth="key_file", key_path=str(path))
    assert form.is_valid(), form.errors
    assert form.save().key_path == str(path)


def test_every_unusable_key_file_gets_the_same_answer_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "huge").write_bytes(b"x" * 1_000_000)
    (tmp_path / "words").write_text("hello")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    paths = [tmp_path / name for name in ("fifo", "huge", "words", "binary", "missing", ".")]
    started = time.monotonic()
    answers = {
        str(server_form(auth="key_file", key_path=str(path)).errors)
        for path in [*paths, "/dev/zero", "/etc/shadow", "../", "~nobody-of-that-name/x", "/proc/self/mem"]
    }
    assert time.monotonic() - started < 5
    assert len(answers) == 1
    assert "key_path" in answers.pop()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_500_000


def test_a_key_file_needs_a_path_and_another_way_to_sign_in_forgets_it(tmp_path):
    assert "key_path" in server_form(auth="key_file").errors
    assert "key_path" in server_form(auth="key_file", key_path="/tmp/a\0b").errors
    form = server_form(auth="agent", key_path="/no/such/file")
    assert form.is_valid(), form.errors
    assert form.save().key_path == ""


def test_a_server_is_no_jump_host_of_its_own(server):
    form = server_form(instance=server, proxy_jump=server.pk)
    assert not form.is_valid()
    assert server not in form.fields["proxy_jump"].queryset
    behind = Server.objects.create(name="Behind", host="b.example", user="x", proxy_jump=server)
    form = server_form(instance=server, proxy_jump=behind.pk)
    assert "loop" in str(form.errors["proxy_jump"])


def test_no_secret_is_ever_rendered():
    stored = saved(auth="key_text", key_text=LOCKED, passphrase="open")
    stored.set_secret("password", "hunter22")
    typed = server_form(
        instance=stored, auth="key_text", key_text=KEY, passphrase="typed-pass", password="typed-word", port="x"
    )
    html = str(ServerForm(instance=stored)) + str(typed)
    assert "stored — leave empty to keep" in html
    for secret in (
        "BEGIN OPENSSH",
        KEY.splitlines()[2],
        "hunter22",
        "typed-pass",
        "typed-word",
        stored.key_text_sealed,
    ):
        assert secret not in html
