"""Listening of the web server; that it serves and ends in order is shown by the process in test_serve.py.

tunnelweb.server chooses the event loop for its whole process, so it is not imported into this one.
"""

import json
import socket
import subprocess
import sys
from typing import Any

from tests.conftest import REPOSITORY

CODE = """
import json, sys
import django
django.setup()
from tunnelweb import server
try:
    bound = server.bind(sys.argv[1], int(sys.argv[2]))
    print(json.dumps([s.getsockname()[:2] for s in bound]))
    [s.close() for s in bound]
except server.PortTaken:
    print(json.dumps("taken"))
except OSError:
    print(json.dumps("refused"))
"""


def bind(host: str, port: int) -> Any:
    environment = {"PATH": "/usr/bin:/bin", "DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", CODE, host, str(port)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_localhost_means_both_loopback_addresses_on_one_port() -> None:
    (four, port), (six, same) = bind("localhost", 0)

    assert (four, six) == ("127.0.0.1", "::1")
    assert port == same


def test_a_port_taken_on_either_address_is_taken() -> None:
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.create_server((address, 0), family=family) as holder:
            assert bind("localhost", holder.getsockname()[1]) == "taken"


def test_an_address_of_another_machine_is_refused() -> None:
    assert bind("192.0.2.1", 0) == "refused"
    assert bind("no.such.name.invalid", 0) == "refused"
