"""AES-GCM packets as asyncssh makes them, byte for byte."""

from __future__ import annotations

import os

import pytest
from asyncssh.encryption import GCMEncryption
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st

from forwards.engine import gcm
from forwards.engine.gcm import BATCH, INBOUND, INBOUND_VIEW, MANY_PACKETS, PacketCipher, room
from forwards.engine.wire import CLOSE, DATA, EOF, PACKET_SIZE, WINDOW_ADJUST

NAMES = {"aes128-gcm@openssh.com": 16, "aes256-gcm@openssh.com": 32}
LAST = b"\xff" * 8

ciphers = pytest.mark.parametrize("name", NAMES)


def pair(name: str = "aes128-gcm@openssh.com", counter: bytes = bytes(8)) -> tuple[GCMEncryption, PacketCipher]:
    """Return asyncssh's cipher and ours, with the same key and counter."""
    key, start = os.urandom(NAMES[name]), os.urandom(4) + counter
    short = name.partition("@")[0]
    return GCMEncryption.new(short, key, start), PacketCipher(GCMEncryption.new(short, key, start))


def opened(theirs: GCMEncryption, packet: bytes) -> tuple[int, bytes]:
    """Return a sealed packet's padding and what is between its padding length and its padding, as asyncssh reads it."""
    first, _ = theirs.decrypt_header(0, packet[:16], 4)
    assert int.from_bytes(packet[:4]) == len(packet) - 4 - gcm.TAG
    plain = theirs.decrypt_packet(0, first, packet[16:-16], 4, packet[-16:])
    assert plain is not None
    assert len(plain) % 16 == 0
    return plain[0], plain[1 : -plain[0]]


def fill(data: bytes) -> None:
    """Lay data where a client's bytes are read to."""
    for number in range(0, len(data), PACKET_SIZE):
        part = data[number : number + PACKET_SIZE]
        MANY_PACKETS[number // PACKET_SIZE][: len(part)] = part


@ciphers
@pytest.mark.parametrize("counter", [bytes(8), bytes(7) + b"\xfe", LAST], ids=["first", "carries", "wraps"])
def test_what_is_sealed_is_asyncsshs_packet_for_many_packets(name, counter) -> None:
    theirs, ours = pair(name, counter)

    for number in range(300):
        packet = os.urandom(16 * (1 + number % 40))
        header = len(packet).to_bytes(4)
        sealed, tag = theirs.encrypt_packet(number, header, packet)
        if number % 2:
            assert ours.encrypt_packet(number, header, packet) == (sealed, tag)
        else:
            assert ours.seal(header, packet) == sealed + tag


@ciphers
@pytest.mark.parametrize("counter", [bytes(8), bytes(7) + b"\xfe", LAST], ids=["first", "carries", "wraps"])
def test_what_asyncssh_sealed_is_opened_by_either_way(name, counter) -> None:
    theirs, ours = pair(name, counter)

    for number in range(300):
        packet = os.urandom(16 * (1 + number % 40))
        sealed, tag = theirs.encrypt_packet(number, len(packet).to_bytes(4), packet)
        if number % 2:
            start = number * 7
            INBOUND[start : start + len(sealed) + 16] = sealed + tag
            ours.open_in_place(start, len(packet))
            assert bytes(INBOUND_VIEW[start + 4 : start + 4 + len(packet)]) == packet
        else:
            first, length = ours.decrypt_header(number, sealed[:16], 4)
            assert (first, length) == (sealed[:16], sealed[:4])
            assert ours.decrypt_packet(number, first, sealed[16:], 4, tag) == packet


@ciphers
@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(
        st.one_of(st.integers(1, 200), st.integers(1, BATCH * PACKET_SIZE), st.sampled_from([PACKET_SIZE])), max_size=6
    )
)
def test_channel_data_is_read_by_asyncssh_as_it_was(name, sizes) -> None:
    theirs, ours = pair(name)

    for size in sizes:
        data = os.urandom(size)
        fill(data)
        packets, total = ours.seal_data(7, size)
        assert total == sum(len(packet) - 4 - gcm.TAG for packet in packets)
        carried = b""
        for packet in packets:
            padding, message = opened(theirs, bytes(packet))
            assert 4 <= padding <= 255
            assert message[:5] == bytes((DATA, 0, 0, 0, 7))
            assert int.from_bytes(message[5:9]) == len(message) - 9 <= PACKET_SIZE
            carried += message[9:]
        assert carried == data


@ciphers
def test_messages_are_read_by_asyncssh_as_they_were(name) -> None:
    theirs, ours = pair(name)

    for size in range(100):
        kind, payload = (EOF, CLOSE, WINDOW_ADJUST)[size % 3], os.urandom(size)
        packet, length = ours.seal_message(kind, payload)
        padding, message = opened(theirs, packet)
        assert length == len(packet) - 4 - gcm.TAG
        assert 4 <= padding <= 255
        assert message == bytes((kind,)) + payload


def test_data_messages_and_packets_of_asyncssh_share_one_counter() -> None:
    theirs, ours = pair()

    for _ in range(20):
        fill(b"data")
        (data,), _ = ours.seal_data(1, 4)
        message, _ = ours.seal_message(EOF, b"")
        sealed, tag = ours.encrypt_packet(0, bytes((0, 0, 0, 16)), bytes((15,)) + b"asyncssh's here")
        for packet in (bytes(data), message):
            opened(theirs, packet)
        assert theirs.decrypt_packet(0, sealed[:16], sealed[16:], 4, tag) == bytes((15,)) + b"asyncssh's here"


@pytest.mark.parametrize("at", [0, 3, 4, 5, 19, 20, 35])
@pytest.mark.parametrize("bit", [0, 7])
def test_no_flipped_bit_is_taken(at, bit) -> None:
    theirs, ours = pair()
    sealed, tag = theirs.encrypt_packet(0, bytes((0, 0, 0, 16)), bytes(16))
    broken = bytearray(sealed + tag)
    broken[at] ^= 1 << bit
    INBOUND[:36] = broken

    with pytest.raises(InvalidTag):
        ours.open_in_place(0, 16)
    theirs, ours = pair()
    assert ours.decrypt_packet(0, bytes(broken[:16]), bytes(broken[16:20]), 4, bytes(broken[20:])) is None


def test_a_packet_cannot_be_taken_twice() -> None:
    theirs, ours = pair()
    sealed, tag = theirs.encrypt_packet(0, bytes((0, 0, 0, 16)), bytes(16))
    INBOUND[:36] = sealed + tag
    ours.open_in_place(0, 16)
    INBOUND[:36] = sealed + tag

    with pytest.raises(InvalidTag):
        ours.open_in_place(0, 16)


def test_a_packet_that_was_opened_is_handed_over_once() -> None:
    theirs, ours = pair()
    first, tag = theirs.encrypt_packet(0, bytes((0, 0, 0, 16)), bytes(16))
    second, second_tag = theirs.encrypt_packet(1, bytes((0, 0, 0, 16)), b"\1" * 16)
    INBOUND[:36] = first + tag
    ours.open_in_place(0, 16)
    ours.plain = bytes(16)

    assert ours.decrypt_packet(0, first[:16], first[16:], 4, tag) == bytes(16)
    assert ours.plain is None
    assert ours.decrypt_packet(1, second[:16], second[16:], 4, second_tag) == b"\1" * 16


def test_a_broken_packet_stays_broken() -> None:
    theirs, ours = pair()
    sealed, tag = theirs.encrypt_packet(0, bytes((0, 0, 0, 16)), bytes(16))
    ours.broken = True

    assert ours.decrypt_packet(0, sealed[:16], sealed[16:], 4, tag) is None


def test_padding_is_random() -> None:
    theirs, ours = pair()
    endings = set()
    for _ in range(20):
        fill(b"x")
        (packet,), _ = ours.seal_data(0, 1)
        packet = bytes(packet)
        plain = theirs.decrypt_packet(0, packet[:16], packet[16:-16], 4, packet[-16:])
        assert plain is not None
        endings.add(plain[-plain[0] :])

    assert len(endings) == 20


@pytest.mark.parametrize("window", [1, 5, PACKET_SIZE - 1, PACKET_SIZE, PACKET_SIZE + 1, BATCH * PACKET_SIZE - 1])
def test_there_is_room_for_exactly_the_window(window) -> None:
    buffers = room(window)

    assert sum(map(len, buffers)) == window
    assert all(len(buffer) == PACKET_SIZE for buffer in buffers[:-1])
