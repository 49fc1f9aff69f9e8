"""Stock asyncssh: `asyncssh_forward.py PORT USER KEY KNOWN_HOSTS LISTEN:TARGET…`."""

import asyncio
import sys

import asyncssh


async def main(port: str, user: str, key: str, known_hosts: str, *pairs: str) -> None:
    async with asyncssh.connect(
        "127.0.0.1", int(port), username=user, client_keys=[key], known_hosts=known_hosts, config=[]
    ) as connection:
        for pair in pairs:
            listen, target = map(int, pair.split(":"))
            await connection.forward_local_port("127.0.0.1", listen, "127.0.0.1", target)
        await connection.wait_closed()


asyncio.run(main(*sys.argv[1:]))
