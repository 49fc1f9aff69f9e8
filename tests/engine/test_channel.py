"""One channel's states and windows, without a connection."""

from __future__ import annotations

from typing import Any

import asyncssh
import pytest
from asyncssh.packet import Boolean, SSHPacket, String, UInt32
from hypothesis import given
from hypothesis import strategies as st

from forwards.engine import channel as module
from forwards.engine.channel import FAR_AWAY, FIRST_WINDOW, LARGEST_WINDOW, Channel
from forwards.engine.wire import (
    CHANNEL_OPEN,
    CLOSE,
    DATA,
    EOF,
    EXTENDED_DATA,
    FAILURE,
    PACKET_SIZE,
    REQUEST,
    WINDOW_ADJUST,
)


class Connection:
    def __init__(self) -> None:
        self.channels: dict[int, Any] = {}
        self.answers: list[tuple[object, ...]] = []

    def add_channel(self, channel: Channel) -> int:
        self.channels[41] = channel
        return 41

    def remove_channel(self, number: int) -> None:
        del self.channels[number]

    def send_channel_open_confirmation(self, *answer: object) -> None:
        self.answers.append(answer)

    send_channel_open_failure = send_channel_open_confirmation


class Recorder:
    """A wire that keeps what it is given."""

    def __init__(self) -> None:
        self.conn = Connection()
        self.round_trip = 0.0
        self.sent: list[tuple[int, bytes]] = []

    def note_round_trip(self, seconds: float) -> None:
        self.noted = seconds

    def send(self, kind: int, payload: bytes) -> None:
        self.sent.append((kind, payload))

    def kinds(self) -> list[int]:
        return [kind for kind, _ in self.sent]


class Told(Channel):
    """A channel that keeps what it is told."""

    def __init__(self, wire: Any) -> None:
        super().__init__(wire)
        self.events: list[Any] = []

    def opened(self) -> None:
        self.events.append("opened")

    def refused(self, error: Exception) -> None:
        self.events.append(error)

    def data(self, data: memoryview | bytes) -> None:
        self.events.append(bytes(data))

    def ended(self) -> None:
        self.events.append("ended")

    def lost(self, error: Exception | None, *, in_order: bool) -> None:
        self.events.append(("lost", error, in_order))


@pytest.fixture
def wire() -> Recorder:
    return Recorder()


@pytest.fixture
def opening(wire) -> Told:
    channel = Told(wire)
    channel.open_direct("db.internal", 5432, "127.0.0.1", 50_000)
    return channel


@pytest.fixture
def channel(opening, wire) -> Told:
    opening.process_open_confirmation(7, 1_000, 50_000, SSHPacket(b""))
    wire.sent.clear()
    opening.events.clear()
    return opening


def hear(channel: Channel, kind: int, *payload: bytes) -> bool:
    return channel.process_packet(kind, 0, SSHPacket(b"".join(payload)))


def test_it_asks_for_a_channel_as_rfc_4254_says(opening, wire) -> None:
    ((kind, payload),) = wire.sent
    packet = SSHPacket(payload)

    assert kind == CHANNEL_OPEN
    assert packet.get_string() == b"direct-tcpip"
    assert [packet.get_uint32() for _ in range(3)] == [41, FIRST_WINDOW, PACKET_SIZE]
    assert (packet.get_string(), packet.get_uint32()) == (b"db.internal", 5432)
    assert (packet.get_string(), packet.get_uint32()) == (b"127.0.0.1", 50_000)
    packet.check_end()


def test_it_is_open_once_confirmed(opening, wire) -> None:
    assert (opening.is_opening, opening.is_open) == (True, False)
    opening.process_open_confirmation(7, 1_000, 50_000, SSHPacket(b""))

    assert (opening.is_opening, opening.is_open) == (False, True)
    assert (opening.send_id, opening.send_window, opening.send_packet_size) == (7, 1_000, PACKET_SIZE)
    assert opening.events == ["opened"]
    assert wire.noted > 0


def test_a_small_packet_size_is_kept(opening) -> None:
    opening.process_open_confirmation(7, 1_000, 100, SSHPacket(b""))

    assert opening.send_packet_size == 100


def test_it_is_forgotten_when_refused(opening, wire) -> None:
    opening.process_open_failure(2, "Connection refused", "en")

    (error,) = opening.events
    assert (error.code, error.reason) == (2, "Connection refused")
    assert (wire.conn.channels, opening.recv_id) == ({}, None)


def test_it_is_answered_once_only(channel) -> None:
    with pytest.raises(asyncssh.ProtocolError):
        channel.process_open_confirmation(7, 1, 1, SSHPacket(b""))
    with pytest.raises(asyncssh.ProtocolError):
        channel.process_open_failure(1, "", "")
    assert channel.events == []


@pytest.mark.parametrize("kind", [DATA, WINDOW_ADJUST, EOF, CLOSE, REQUEST, EXTENDED_DATA])
def test_nothing_is_heard_before_it_is_open(opening, kind) -> None:
    with pytest.raises(asyncssh.ProtocolError):
        hear(opening, kind, String(b"x"))
    assert opening.events == []


def test_nothing_is_said_before_it_is_open(opening, wire) -> None:
    wire.sent.clear()
    opening.send_eof()
    opening.close()
    opening.delivered(FIRST_WINDOW)

    assert wire.sent == []


def test_ends_are_said_once_and_none_after_the_close(channel, wire) -> None:
    channel.send_eof()
    channel.send_eof()
    channel.close()
    channel.close()
    channel.send_eof()

    assert wire.sent == [(EOF, UInt32(7)), (CLOSE, UInt32(7))]
    assert wire.conn.channels == {41: channel}


def test_after_its_close_it_only_waits_for_the_peers(channel, wire) -> None:
    channel.close()
    hear(channel, DATA, String(b"late"))
    hear(channel, EOF)
    hear(channel, REQUEST, String("x"), Boolean(True))
    channel.delivered(FIRST_WINDOW)
    assert channel.events == []
    hear(channel, CLOSE)

    assert channel.events == [("lost", None, True)]
    assert wire.kinds() == [CLOSE]
    assert wire.conn.channels == {}


def test_a_close_is_answered_and_ends_it_once(channel, wire) -> None:
    hear(channel, CLOSE)
    channel.receive_close()
    channel.process_connection_close(None)

    assert channel.events == [("lost", None, True)]
    assert wire.kinds() == [CLOSE]


def test_a_lost_connection_ends_it_out_of_order(channel, opening, wire) -> None:
    error = asyncssh.ConnectionLost("gone")
    channel.process_connection_close(error)

    assert channel.events == [("lost", error, False)]
    assert wire.sent == []


def test_a_lost_connection_refuses_what_is_being_opened(opening) -> None:
    opening.process_connection_close(asyncssh.ConnectionLost("gone"))

    (error,) = opening.events
    assert isinstance(error, asyncssh.ChannelOpenError)


def test_data_is_given_on_as_far_as_the_window_goes(channel) -> None:
    hear(channel, DATA, String(b"all"))
    channel.recv_window = 4
    hear(channel, DATA, String(b"that"))
    with pytest.raises(asyncssh.ProtocolError):
        hear(channel, DATA, String(b"!"))

    assert channel.events == [b"all", b"that"]


def test_extended_data_is_refused(channel) -> None:
    with pytest.raises(asyncssh.ProtocolError):
        hear(channel, EXTENDED_DATA, UInt32(1), String(b"error"))


def test_requests_are_not_known(channel, wire) -> None:
    assert hear(channel, REQUEST, String("keepalive@openssh.com"), Boolean(True))
    assert hear(channel, REQUEST, String("exit-status"), Boolean(False))
    assert not hear(channel, 99)

    assert wire.sent == [(FAILURE, UInt32(7))]


def test_the_peers_channel_is_opened_or_refused(wire) -> None:
    accepted, refused = Told(wire), Told(wire)
    for asked in (accepted, refused):
        asked.register()
        asked.process_open(9, 500, 70_000, None)
        with pytest.raises(asyncssh.ProtocolError):
            asked.process_open_confirmation(9, 1, 1, SSHPacket(b""))
    accepted.accept()
    refused.refuse(1, "no")

    assert wire.conn.answers == [(9, 41, FIRST_WINDOW, PACKET_SIZE), (9, 1, "no", "en")]
    assert accepted.events == ["opened"]
    assert (accepted.send_window, accepted.send_packet_size) == (500, PACKET_SIZE)


def test_a_channel_whose_connection_went_is_neither_accepted_nor_refused(wire) -> None:
    gone = Told(wire)
    gone.register()
    gone.process_open(9, 500, 70_000, None)
    gone.process_connection_close(None)
    gone.events.clear()
    gone.accept()
    gone.refuse(1, "no")

    assert (wire.conn.answers, gone.events, gone.is_open) == ([], [], False)


# Windows


def adjusts(wire: Recorder) -> list[int]:
    return [int.from_bytes(payload[4:]) for kind, payload in wire.sent if kind == WINDOW_ADJUST]


@given(counts=st.lists(st.integers(0, FIRST_WINDOW // 3), max_size=40))
def test_the_peer_may_send_again_what_was_delivered_and_no_more(counts) -> None:
    wire = Recorder()
    channel = Told(wire)
    channel.open_direct("h", 1, "o", 2)
    channel.process_open_confirmation(7, 1, 1, SSHPacket(b""))
    total = 0
    for count in counts:
        channel.receive_data(bytes(count))
        channel.delivered(count)
        total += count
        assert channel.recv_window == FIRST_WINDOW - total + sum(adjusts(wire))
        assert FIRST_WINDOW // 2 <= channel.recv_window <= FIRST_WINDOW
        assert channel.consumed + sum(adjusts(wire)) == total


def filled(channel: Told, monkeypatch, seconds: float, times: int = 10) -> None:
    """Let a peer fill half a window every `seconds`."""
    now = [1_000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for _ in range(times):
        now[0] += seconds
        half = (channel.window + 1) // 2
        channel.receive_data(bytes(half))
        channel.delivered(half)


def test_the_window_of_a_near_server_stays(channel, wire, monkeypatch) -> None:
    wire.round_trip = FAR_AWAY * 0.99
    filled(channel, monkeypatch, 0.0001)

    assert channel.window == FIRST_WINDOW
    assert set(adjusts(wire)) == {FIRST_WINDOW // 2}


def test_the_window_of_a_far_server_grows_to_the_largest_while_it_is_filled(channel, wire, monkeypatch) -> None:
    wire.round_trip = 0.1
    filled(channel, monkeypatch, 0.05)

    assert channel.window == LARGEST_WINDOW
    assert channel.recv_window <= LARGEST_WINDOW
    assert sum(adjusts(wire)) == channel.recv_window - FIRST_WINDOW + sum(
        len(event) for event in channel.events if isinstance(event, bytes)
    )


def test_the_window_of_a_far_server_stays_where_it_suffices(channel, wire, monkeypatch) -> None:
    wire.round_trip = 0.1
    filled(channel, monkeypatch, 10.0)

    assert channel.window == FIRST_WINDOW
