"""sshtunnel on paramiko: `sshtunnel_forward.py PORT USER KEY KNOWN_HOSTS LISTEN:TARGET…`."""

import sys
import threading

import sshtunnel


def main(port: str, user: str, key: str, known_hosts: str, *pairs: str) -> None:
    ports = [tuple(map(int, pair.split(":"))) for pair in pairs]
    with sshtunnel.open_tunnel(
        ("127.0.0.1", int(port)),
        ssh_username=user,
        ssh_pkey=key,
        ssh_config_file=None,
        allow_agent=False,
        host_pkey_directories=[],
        local_bind_addresses=[("127.0.0.1", listen) for listen, _ in ports],
        remote_bind_addresses=[("127.0.0.1", target) for _, target in ports],
    ):
        threading.Event().wait()


main(*sys.argv[1:])
