"""What is wanted, in frozen values: one SSH server, one forward.

Parsing, normalising and validating live here, so that the form, the admin and the engine refuse the same input.
Nothing of this module imports asyncssh or Django.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MAX_PORT = 65535
MAX_HOST_LENGTH = 253
LOOPBACK = "127.0.0.1"
ANY_INTERFACE = "*"

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")
_PORT = re.compile(r"[0-9]{1,5}\Z")
_ZONE = re.compile(r"[A-Za-z0-9_.~-]{1,32}\Z")


class SpecError(ValueError):
    """An input that cannot be part of a spec.

    `code` names the reason for forwards.reasons to put in words; `params` fills the sentence.
    """

    def __init__(self, code: str, **params: str | int) -> None:
        super().__init__(code)
        self.code = code
        self.params: Mapping[str, str | int] = params


class Kind(StrEnum):
    """Direction of a forward: `ssh -L`, `ssh -R`, `ssh -D`."""

    LOCAL = "local"
    REMOTE = "remote"
    DYNAMIC = "dynamic"


class Auth(StrEnum):
    """How Tunnelweb signs in at a server."""

    AGENT = "agent"
    KEY_FILE = "key_file"
    KEY_TEXT = "key_text"
    PASSWORD = "password"  # noqa: S105 - the name of a method, not a password


def parse_port(text: str | int, *, listening: bool) -> int:
    """Return a TCP port from ASCII digits; 0 ("choose one") only for a `listening` port. Raises SpecError."""
    digits = str(text).strip(" ")
    lowest = 0 if listening else 1
    if not _PORT.match(digits) or not lowest <= int(digits) <= MAX_PORT:
        raise SpecError("port_invalid", lowest=lowest, highest=MAX_PORT)
    return int(digits)


def _is_address(host: str) -> bool:
    address, percent, zone = host.partition("%")
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return False
    return not percent or (version == 6 and bool(_ZONE.match(zone)))


def parse_host(text: str) -> str:
    """Return a host name or address without IPv6 brackets, as typed otherwise. Raises SpecError.

    Names outside ASCII are accepted where IDNA (RFC 5891) can write them; `wire_host` does that writing.
    """
    host = text.strip(" ")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise SpecError("host_invalid")
    if not host:
        raise SpecError("host_missing")
    if _is_address(host):
        return host
    name = wire_host(host).removesuffix(".")
    # A name of digits and dots only is a mistyped address: no resolver should get to guess at it.
    if len(name) > MAX_HOST_LENGTH or not re.search("[A-Za-z_-]", name):
        raise SpecError("host_invalid")
    if not all(_LABEL.match(label) for label in name.split(".")):
        raise SpecError("host_invalid")
    return host


def wire_host(host: str) -> str:
    """Return `host` in ASCII, as resolvers and SSH servers take it. Raises SpecError."""
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        raise SpecError("host_invalid") from None


def parse_bind_host(text: str) -> str:
    """Return the address to listen on: blank means loopback, as for OpenSSH; `*` means every interface."""
    host = text.strip(" ")
    if not host:
        return LOOPBACK
    return host if host == ANY_INTERFACE else parse_host(host)


def parse_user(text: str) -> str:
    """Return an SSH user name. Raises SpecError for control characters, surrogates or more than 255 characters."""
    user = text.strip(" ")
    if not user:
        raise SpecError("user_missing")
    if len(user) > 255 or not user.isprintable():
        raise SpecError("user_invalid")
    return user


def is_loopback(host: str) -> bool:
    """Say whether a listener on `host` can be reached from its own machine only."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def is_every_interface(host: str) -> bool:
    """Say whether `host` stands for every interface of the machine (`*`, `0.0.0.0`, `::`)."""
    if host == ANY_INTERFACE:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_unspecified


def join_host_port(host: str, port: int | str) -> str:
    """Return `host:port`, with brackets around an IPv6 address (RFC 3986)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """One SSH server and how to sign in there.

    Times are seconds. `host_keys` are the trusted keys in OpenSSH's public form (`ssh-ed25519 AAAA…`); an empty
    tuple means nobody has trusted one yet. Secrets are left out of the repr.
    """

    id: int
    name: str = field(compare=False)
    host: str
    port: int
    user: str
    auth: Auth
    key_path: str = ""
    key_text: str = field(default="", repr=False)
    passphrase: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    proxy_jump: int | None = None
    keepalive_interval: float = 15
    keepalive_count_max: int = 3
    connect_timeout: float = 15
    host_keys: tuple[str, ...] = ()
    # Why the stored secrets could not be read; the server cannot be signed in to until they are given anew.
    secrets_lost: bool = False

    @property
    def address(self) -> str:
        return join_host_port(self.host, self.port)


@dataclass(frozen=True, slots=True)
class ForwardSpec:
    """One forward in the engine's terms: which end listens follows from the kind.

    local, dynamic: Tunnelweb's machine listens. remote: the server listens. A dynamic forward has no destination.
    `generation` grows with each Start, so that pressing Start on a failed forward tries anew.
    """

    id: int
    name: str = field(compare=False)
    kind: Kind
    server_id: int
    listen_host: str
    listen_port: int
    dest_host: str = ""
    dest_port: int = 0
    probe: bool = True
    generation: int = 0

    def __post_init__(self) -> None:
        parse_port(self.listen_port, listening=True)
        # SSH servers take a blank host for every interface; here, as for OpenSSH's own client, it is loopback.
        object.__setattr__(self, "listen_host", parse_bind_host(self.listen_host))
        if self.kind is not Kind.DYNAMIC:
            parse_port(self.dest_port, listening=False)
            parse_host(self.dest_host)

    @property
    def listens_on_server(self) -> bool:
        return self.kind is Kind.REMOTE
