"""Every sentence that says what went wrong and what to do, by reason code.

The engine reports codes and parameters; the words are here, so that they can be translated.
"""

from collections.abc import Mapping

from django.utils.translation import gettext
from django.utils.translation import gettext_noop as _

SENTENCES: Mapping[str, str] = {
    # Input
    "port_invalid": _("Enter a port between %(lowest)s and %(highest)s, in digits."),
    "host_missing": _("Enter a host name or an IP address."),
    "host_invalid": _("This is not a host name or an IP address."),
    "user_missing": _("Enter the user to sign in as."),
    "user_invalid": _("The user name must be at most 255 characters, without control characters."),
    "key_file_unusable": _(
        "The key file cannot be used. It must be a regular file of at most 64 KB that Tunnelweb can read, "
        "and hold a private key."
    ),
    "key_ppk": _(
        "This is a PuTTY key (.ppk). Convert it with “puttygen key.ppk -O private-openssh -o key”, or in PuTTYgen "
        "with Conversions → Export OpenSSH key, and paste the result."
    ),
    "key_public": _("This is a public key. Paste the private one: it begins with “-----BEGIN”."),
    "key_invalid": _(
        "This is not a whole private key in OpenSSH or PEM form. Paste it from “-----BEGIN” to “END-----”."
    ),
    "key_too_large": _("This is too large for a private key; 64 KB is the limit."),
    "jump_loop": _("The jump hosts form a loop. Choose another jump host."),
    # Signing in
    "secrets_lost": _(
        "The stored secrets of %(server)s cannot be opened with this installation's key. Enter them again."
    ),
    "key_passphrase": _("The private key for %(server)s is locked. Enter its passphrase in the server's settings."),
    "key_passphrase_wrong": _("The passphrase does not open the private key for %(server)s. Enter the right one."),
    "auth_failed_password": _("%(server)s refused the password of %(user)s. Check user and password."),
    "auth_failed_key": _(
        "%(server)s refused the key of %(user)s. Check the user, and that the public key is in its authorized_keys "
        "file."
    ),
    "auth_failed_agent": _(
        "%(server)s refused every key of the SSH agent for %(user)s. Check the user, and the agent with “ssh-add -l”."
    ),
    "agent_missing": _(
        "No SSH agent can be reached. Start one, add the key with “ssh-add”, and start Tunnelweb where SSH_AUTH_SOCK "
        "is set."
    ),
    "agent_empty": _("The SSH agent holds no key. Add one with “ssh-add”."),
    "hostkey_unknown": _("Host key of %(server)s not yet trusted. Compare its fingerprint, then trust it."),
    "hostkey_changed": _(
        "The host key of %(server)s has changed. Somebody may be listening in: nothing was sent. Check before you "
        "accept it."
    ),
    "hostkey_invalid": _("%(server)s sent a host key that cannot be checked: %(detail)s."),
    "kex_failed": _(
        "Tunnelweb and %(server)s have no common encryption method: %(detail)s. The server needs a newer SSH."
    ),
    "user_refused": _("The user name %(user)s cannot be used to sign in at %(server)s."),
    # Reaching the server
    "name_not_found": _("The name %(host)s was not found. Check its spelling, and the network."),
    "unreachable": _("%(host)s cannot be reached: %(detail)s. Check the network and the address."),
    "refused": _("%(host)s refuses SSH connections on port %(port)s. Check the port, and that the SSH server runs."),
    "timeout": _("%(host)s did not answer on port %(port)s in time. Check the address and any firewall between."),
    "connection_lost": _("The connection to %(server)s was lost: %(detail)s."),
    "keepalive_lost": _("%(server)s stopped answering."),
    "not_ssh": _("What answers at %(host)s port %(port)s is not an SSH server."),
    "jump_failed": _("Jump host %(jump)s: %(detail)s"),
    "jump_waiting": _("Waiting for jump host %(jump)s."),
    "jump_missing": _("The jump host of %(server)s no longer exists. Choose another."),
    "jump_forbidden": _("Jump host %(jump)s does not let connections pass to %(host)s port %(port)s."),
    "jump_cannot_reach": _("Jump host %(jump)s cannot reach %(host)s port %(port)s."),
    "server_missing": _("The server of this forward no longer exists."),
    # Listening
    "port_in_use": _("Port %(port)s is already in use on this machine."),
    "port_in_use_by": _("Port %(port)s is already in use on this machine by %(program)s (process %(pid)s)."),
    "port_in_use_ours": _("Port %(port)s is already in use by another forward, or by the dashboard itself."),
    "port_privileged": _("Port %(port)s needs root: ports below 1024 do. Take a higher one."),
    "bind_address": _("This machine has no address %(host)s to listen on."),
    "listen_failed": _("Cannot listen on %(host)s port %(port)s: %(detail)s."),
    "remote_port_refused": _(
        "%(server)s does not open port %(port)s: it is in use there, or the server forbids it "
        "(AllowTcpForwarding, PermitListen; ports below 1024 need root)."
    ),
    "remote_port_timeout": _("%(server)s did not answer the request to open port %(port)s."),
    # The way through the tunnel
    "forwarding_forbidden": _(
        "%(server)s forbids this forward. Its sshd_config must allow it: AllowTcpForwarding, PermitOpen."
    ),
    "dest_refused": _("Connected, but %(dest)s on %(server)s refuses connections. Check that the service runs there."),
    "dest_refused_here": _("Connected, but %(dest)s on this machine refuses connections. Check that the service runs."),
    "dest_unreachable": _("Connected, but %(server)s cannot reach %(dest)s: %(detail)s."),
    "dest_unreachable_here": _("Connected, but this machine cannot reach %(dest)s: %(detail)s."),
    "dest_timeout": _("Connected, but %(dest)s does not answer. A firewall may drop the connection."),
    "public_no": _(
        "%(server)s opened port %(port)s for itself only. For other machines its sshd_config needs "
        "“GatewayPorts clientspecified”."
    ),
    "internal": _("Tunnelweb failed at this: %(detail)s. The log says more."),
}


def sentence(code: str, params: Mapping[str, object] | None = None) -> str:
    """Return the sentence for a reason code in the active language.

    A `detail` that is itself a reason (a jump host's) comes as `detail_code` with the same parameters. A stored reason
    may be of another version than this one: what cannot be put in words is named by its code, and breaks no page.
    """
    values = dict(params or {})
    if inner := values.pop("detail_code", None):
        values["detail"] = sentence(str(inner), values)
    try:
        return gettext(SENTENCES[code]) % values
    except KeyError:
        return gettext("Something went wrong (%(code)s).") % {"code": code}
