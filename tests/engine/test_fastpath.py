"""The fast path carries what the plain one carries, byte for byte, and steps aside where it does not belong."""

from __future__ import annotations

import asyncssh
import pytest
from asyncssh.encryption import ChachaEncryption, GCMEncryption
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from forwards.engine import fastpath
from forwards.engine.gcm import PacketCipher
from forwards.engine.wire import Wire
from tests.engine.clients import play_all
from tests.engine.fast_rig import GCM, LOOPS, Bench, forwarding, run
from tests.engine.rig import ask, eventually
from tests.engine.scripts import Outcome, Script, expected

AES256, CHACHA, CTR = "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"

loops = pytest.mark.parametrize("loop", LOOPS)
paths = pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])


def proven(examples: int) -> settings:
    # Shrinking would replay whole connections for minutes; what is printed repeats the failure as it is.
    phases = [Phase.explicit, Phase.reuse, Phase.generate]
    slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
    return settings(
        max_examples=examples, deadline=None, print_blob=True, phases=phases, suppress_health_check=slow, database=None
    )


sizes = st.one_of(
    st.integers(0, 5),
    st.integers(0, 3_000),
    st.sampled_from([32_767, 32_768, 32_769, 65_536, 262_144]),
    st.integers(0, 600_000),
)


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    window, packet = draw(
        st.sampled_from(
            [(2_097_152, 32_768), (2_097_152, 65_536), (300_000, 32_768), (32_768, 32_768), (5_000, 700), (40, 16)]
        )
    )
    up = draw(sizes)
    # What is a packet per few bytes is exhausted by a few thousand too.
    up = up % 4_000 if window < 1_000 else up
    echo = draw(st.booleans())
    down = 0 if echo else draw(sizes)
    ends = draw(st.sampled_from(["", "", "client", "server", "closes", "leaves"]))
    return Script(
        up=up,
        down=down,
        echo=echo and ends not in ("client", "closes"),
        last=ends if ends in ("client", "server") else "",
        closes=ends == "closes",
        leaves=draw(st.integers(0, up if echo else down)) if ends == "leaves" else None,
        window=window,
        packet=packet,
        slow=draw(st.integers(0, 3)) == 0,
    )


async def played(fast: bool, played_scripts: list[Script], **network: object) -> list[tuple[Outcome, Outcome]]:
    async with forwarding(*played_scripts, fast=fast, **network) as bench:
        got = await play_all(bench)
        await bench.no_channels()
        assert_counted(bench, got)
        assert_path(bench, fast)
        assert bench.refusals == []
        await in_step(bench)
        return [(outcome, bench.at_server[number]) for number, outcome in enumerate(got, 1)]


def assert_path(bench: Bench, fast: bool) -> None:
    if not fast:
        assert type(bench.session.wire) is Wire
        assert (bench.fast_received, bench.fast_sent) == (0, 0)
        assert type(bench.conn._recv_encryption) is GCMEncryption
    elif not bench.rekeys:
        assert type(bench.conn._recv_encryption) is PacketCipher
        assert type(bench.conn._send_encryption) is PacketCipher
        assert bench.fast_received >= len(bench.scripts)


async def in_step(bench: Bench) -> None:
    """Wait until both ends count the same packets: the plain path shows the numbers in some answers."""
    conn, server = bench.conn, bench.server
    await eventually(lambda: (conn._recv_seq, conn._send_seq) == (server._send_seq, server._recv_seq))


def assert_counted(bench: Bench, got: list[Outcome]) -> None:
    counters = bench.traffic.counters()
    stayed = all(script.leaves is None for script in bench.scripts)
    received, sent = sum(len(outcome.got) for outcome in got), sum(len(o.got) for o in bench.at_server.values())
    assert (counters.active, counters.total) == (0, len(bench.scripts))
    if stayed:
        assert (counters.bytes_in, counters.bytes_out) == (received, sent)
    else:
        assert counters.bytes_in >= received
        assert counters.bytes_out >= sent


def assert_as_told(number: int, script: Script, seen: tuple[Outcome, Outcome]) -> None:
    """The streams of who stays are whole; of who leaves, they are the beginning of what was sent."""
    at_client, at_server = expected(number, script)
    if script.leaves is None:
        assert seen == (at_client, at_server)
    else:
        assert seen[0].end == "left"
        assert at_client.got.startswith(seen[0].got)
        assert at_server.got.startswith(seen[1].got)


@loops
@proven(80)
@given(
    played_scripts=st.lists(scripts(), min_size=1, max_size=5),
    seed=st.integers(0, 2**32),
    client_rekeys=st.sampled_from([0, 0, 20_000, 300_000]),
    server_rekeys=st.sampled_from([0, 0, 30_000, 200_000]),
    cipher=st.sampled_from([GCM, AES256]),
    filler=st.booleans(),
)
def test_both_paths_carry_the_same_bytes_to_the_same_ends(loop, played_scripts, seed, **network) -> None:
    seen = {fast: run(loop, played(fast, played_scripts, seed=seed, **network)) for fast in (True, False)}

    for number, script in enumerate(played_scripts, 1):
        for fast in (True, False):
            assert_as_told(number, script, seen[fast][number - 1])
        if script.leaves is None:
            assert seen[True][number - 1] == seen[False][number - 1]


@loops
@paths
@pytest.mark.parametrize("rekeying", [{"client_rekeys": 20_000}, {"server_rekeys": 20_000}], ids=["client", "server"])
def test_keys_change_in_mid_transfer(loop, fast, rekeying) -> None:
    async def transfer() -> None:
        streams = [Script(up=300_000, down=300_000), Script(up=200_000, echo=True), Script(down=500_000, slow=True)]
        async with forwarding(*streams, fast=fast, seed=7, **rekeying) as bench:
            got = await play_all(bench)
            await bench.no_channels()
            assert bench.rekeys >= 5
            assert got == [expected(number, script)[0] for number, script in enumerate(streams, 1)]
            if fast:
                assert bench.fast_received >= 5
                assert bench.fast_sent

    run(loop, transfer())


@loops
def test_the_fast_path_is_back_after_the_last_key_exchange(loop) -> None:
    async def transfer() -> None:
        async with forwarding(*[Script(up=400_000, echo=True)] * 3, client_rekeys=300_000, seed=3) as bench:
            bench.conn._rekey_bytes = 300_000
            await play_all(bench)
            bench.conn._rekey_bytes = 2**40
            assert bench.rekeys
            await bench.no_channels()
            before = bench.fast_received, bench.fast_sent
            await play_all(bench)
            assert bench.fast_received > before[0] + 10
            assert bench.fast_sent > before[1]
            assert type(bench.conn._send_encryption) is type(bench.conn._recv_encryption) is PacketCipher

    run(loop, transfer())


@loops
@paths
@pytest.mark.parametrize("cipher", [GCM, CHACHA])
def test_nobody_is_forgotten_while_many_send_at_once(loop, fast, cipher) -> None:
    """More clients have something to say in one turn of the loop than the connection buffers."""

    async def transfer() -> None:
        streams = [Script(up=100_000, window=32_768 * 4) for _ in range(40)]
        async with forwarding(*streams, fast=fast, cipher=cipher) as bench:
            await play_all(bench)
            await bench.no_channels()
            assert [bench.at_server[n].got for n in range(1, 41)] == [
                expected(n, script)[1].got for n, script in enumerate(streams, 1)
            ]

    run(loop, transfer())


@loops
@paths
def test_a_refused_channel_is_told_and_leaves_nothing(loop, fast) -> None:
    async def refused() -> None:
        async with forwarding(Script(echo=True), fast=fast) as bench:
            await bench.listen(2)
            # uvloop finds the socket not connected any more when it wants to end it.
            with pytest.raises(OSError):
                await ask(bench.port(2), b"hello")
            await bench.no_channels()
            assert [error.code for error in bench.refusals] == [asyncssh.OPEN_CONNECT_FAILED]
            assert await ask(bench.port(), b"hello") == b"hello"

    run(loop, refused())


# Where it does not belong


async def _echoes(**network: object) -> Bench:
    async with forwarding(Script(up=200_000, echo=True), **network) as bench:
        assert await play_all(bench) == [expected(1, bench.scripts[0])[0]]
        await bench.no_channels()
    return bench


@loops
@pytest.mark.parametrize("cipher", [CHACHA, CTR])
def test_other_ciphers_are_left_to_asyncssh(loop, cipher) -> None:
    bench = run(loop, _echoes(cipher=cipher))

    assert (bench.fast_received, bench.fast_sent) == (0, 0)
    assert not isinstance(bench.conn._recv_encryption, PacketCipher)
    if cipher == CHACHA:
        assert type(bench.conn._recv_encryption) is ChachaEncryption


@loops
def test_the_environment_switches_it_off(loop) -> None:
    bench = run(loop, _echoes(fast=False))

    assert type(bench.session.wire) is Wire
    assert type(bench.conn._recv_encryption) is GCMEncryption


@pytest.mark.parametrize("version", ["2.23.9", "2.25.0", "3.0"])
def test_an_asyncssh_that_was_not_checked_is_left_alone(monkeypatch, version) -> None:
    assert fastpath.is_usable()
    monkeypatch.setattr(asyncssh, "__version__", version)

    assert not fastpath.is_usable()
    bench = run("asyncio", _echoes())
    assert type(bench.session.wire) is Wire


def test_a_cryptography_that_cannot_decrypt_in_place_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(fastpath, "AESGCM", object)

    assert not fastpath.is_usable()


@loops
def test_a_connection_without_one_of_the_names_is_left_to_asyncssh(monkeypatch, loop) -> None:
    monkeypatch.setattr(fastpath, "_CONNECTION_NAMES", (*fastpath._CONNECTION_NAMES, "_renamed"))
    bench = run(loop, _echoes(seed=1))

    assert (bench.fast_received, bench.fast_sent) == (0, 0)
    assert type(bench.conn._recv_encryption) is GCMEncryption


@loops
def test_of_a_connection_that_is_not_as_expected_nothing_is_asked(monkeypatch, loop) -> None:
    async def asked() -> None:
        async with forwarding(Script(up=200_000, echo=True)) as bench:
            seen: set[str] = set()
            bench.session.wire._conn = Watching(bench.conn, seen)
            assert await play_all(bench) == [expected(1, bench.scripts[0])[0]]
            await bench.no_channels()
            assert not seen & set(fastpath._CONNECTION_NAMES)

    monkeypatch.setattr(fastpath, "_CONNECTION_NAMES", (*fastpath._CONNECTION_NAMES, "_renamed"))
    run(loop, asked())


class Watching:
    """Stands before a connection and notes the names it is asked for."""

    def __init__(self, conn: object, seen: set[str]) -> None:
        self._seen = (conn, seen)

    def __getattr__(self, name: str) -> object:
        conn, seen = self._seen
        seen.add(name)
        return getattr(conn, name)
