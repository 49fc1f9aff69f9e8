"""One client connection: bytes between its socket and its SSH channel, counted, with backpressure and half-close.

Nothing is read from the socket before its channel is open, and then only what the channel's window allows: what a
client sends too early, or too fast, waits in the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable

from forwards.engine.channel import Channel
from forwards.engine.sockets import read_on, reset
from forwards.engine.states import Counters
from forwards.engine.wire import DATA, Wire

logger = logging.getLogger(__name__)

_MOST_BUFFERS = 256


class Traffic:
    """Counters of one forward. `client_at_channel` says which end the client is at: the channel's for a remote."""

    __slots__ = ("active", "client_at_channel", "from_channel", "from_socket", "total")

    def __init__(self, *, client_at_channel: bool) -> None:
        self.client_at_channel = client_at_channel
        self.active = self.total = self.from_channel = self.from_socket = 0

    def counters(self) -> Counters:
        into_client, out_of_client = self.from_channel, self.from_socket
        if self.client_at_channel:
            into_client, out_of_client = out_of_client, into_client
        return Counters(self.active, self.total, into_client, out_of_client)


class Relay(Channel):
    """A client's socket and its channel.

    `on_open` is called once with None when the channel is open, or with the reason why it is not: the socket is then
    still there, for a SOCKS reply or `abort`. `on_end` is called once when the socket is closed.
    """

    __slots__ = (
        "_chunks",
        "_ended",
        "_loop",
        "_on_end",
        "_on_open",
        "_out",
        "_peer_gone",
        "_peer_ended",
        "_reading",
        "_shut",
        "_socket_ended",
        "early",
        "greeting",
        "sock",
        "traffic",
    )

    def __init__(
        self,
        wire: Wire,
        sock: socket.socket | None,
        traffic: Traffic,
        on_open: Callable[[Relay, Exception | None], None],
        on_end: Callable[[Relay], None],
    ) -> None:
        super().__init__(wire)
        self.sock = sock
        self.traffic = traffic
        # Goes to the socket before anything the channel brings: a SOCKS reply a fast server must not overtake.
        self.greeting = b""
        # Goes to the channel first: what a client sent right behind its SOCKS request.
        self.early = b""
        self._on_open = on_open
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._chunks: list[memoryview | bytes] = []
        self._out: deque[bytes] | None = None
        self._reading = self._socket_ended = self._peer_ended = self._peer_gone = self._shut = self._ended = False
        traffic.active += 1
        traffic.total += 1

    def abort(self) -> None:
        """Cut both ends at once; the client gets a reset."""
        self.close()
        self._drop(in_order=False)

    def dialled(self, sock: socket.socket) -> None:
        """Take over a socket connected for this relay, which may have been cut meanwhile."""
        if self._ended:
            reset(sock)
        else:
            self.sock = sock

    def end(self, last: bytes) -> None:
        """Close an unopened relay's socket in order, after some last bytes."""
        if self.sock is not None and not self._ended:
            with contextlib.suppress(OSError):
                self.sock.send(last)
        self._drop(in_order=True)

    # The channel's side

    def opened(self) -> None:
        if self._ended or self.sock is None:
            # The client left, or was cut, while its channel was being opened.
            self.close()
            return
        self._on_open(self, None)
        if self.greeting:
            self.data(self.greeting)
            self.traffic.from_channel -= len(self.greeting)
            self.consumed -= len(self.greeting)
            self.flush()
        self.window_opened()
        if self._reading:
            # A client that speaks first has spoken by now.
            self._readable()

    def refused(self, error: Exception) -> None:
        if not self._ended:
            self._on_open(self, error)

    def _send(self, data: bytes) -> None:
        self.traffic.from_socket += len(data)
        self.send_window -= len(data)
        self.wire.send(DATA, self.send_id.to_bytes(4) + len(data).to_bytes(4) + data)

    def window_opened(self) -> None:
        """Read from the client, if there is reason to and room for it."""
        if self._reading or self._ended or self._socket_ended or not self.is_open or self.send_window <= 0:
            return
        while self.early and self.send_window > 0:
            size = min(self.send_window, self.send_packet_size)
            part, self.early = self.early[:size], self.early[size:]
            self._send(part)
        if self.sock is not None and not self.early:
            self._reading = True
            self._loop.add_reader(self.sock.fileno(), self._readable)

    def data(self, data: memoryview | bytes) -> None:
        self.traffic.from_channel += len(data)
        if not self._ended:
            self._chunks.append(data)

    def flush(self) -> None:
        chunks, self._chunks = self._chunks, []
        if not chunks or self._ended or self.sock is None:
            return
        if self._out is not None:
            self._out.extend(bytes(chunk) for chunk in chunks)
            return
        try:
            sent = self.sock.send(chunks[0]) if len(chunks) == 1 else self.sock.sendmsg(chunks[:_MOST_BUFFERS])
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._socket_failed()
            return
        self._keep(chunks, sent)
        self.delivered(sent)

    def _keep(self, chunks: list[memoryview | bytes], sent: int) -> None:
        """Copy what the socket did not take, and go on when it takes more."""
        for chunk in chunks:
            if sent >= len(chunk):
                sent -= len(chunk)
                continue
            if self._out is None:
                self._out = deque()
                self._loop.add_writer(self._fileno(), self._writable)
            self._out.append(bytes(chunk[sent:]))
            sent = 0

    def ended(self) -> None:
        self._peer_ended = True
        self._after_write()

    def lost(self, error: Exception | None, *, in_order: bool) -> None:
        if in_order or (self._peer_ended and self._out is None):
            self._peer_gone = True
            self._after_write()
        else:
            self._drop(in_order=False)

    # The socket's side

    def _fileno(self) -> int:
        return self.sock.fileno() if self.sock is not None else -1

    def _readable(self) -> None:
        if self.send_window <= 0 or self.wire.full or self.sock is None:
            self._stop_reading()
            if self.wire.full:
                self.wire.when_writable(self.window_opened)
            return
        try:
            count = self.wire.pump(self.sock, self)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._socket_failed()
            return
        except Exception:
            logger.exception("Relaying from a client failed")
            self.abort()
            return
        self.traffic.from_socket += count
        self.send_window -= count
        if not count:
            self._stop_reading()
            self._socket_ended = True
            self.send_eof()
            self._after_write()
        elif self._reading:
            read_on(self._loop, self.sock, self._readable)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fileno())

    def _writable(self) -> None:
        """Go on writing what the socket did not take at once."""
        sent = 0
        try:
            while self._out and self.sock is not None:
                written = self.sock.send(self._out[0])
                sent += written
                if written < len(self._out[0]):
                    self._out[0] = self._out[0][written:]
                    break
                self._out.popleft()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._socket_failed()
            return
        if not self._out:
            self._out = None
            self._loop.remove_writer(self._fileno())
        self.delivered(sent)
        self._after_write()

    def _after_write(self) -> None:
        """Pass on ends, once all that came before them is written."""
        if self._out is not None or self._ended or self.sock is None:
            return
        if self._peer_gone:
            self._drop(in_order=True)
        elif self._peer_ended:
            if self._socket_ended:
                self.close()
                self._drop(in_order=True)
            elif not self._shut:
                self._shut = True
                try:
                    self.sock.shutdown(socket.SHUT_WR)
                except OSError:
                    # The client is gone; as it was not being read from, nobody had noticed.
                    self._socket_failed()

    def _socket_failed(self) -> None:
        self.close()
        self._drop(in_order=False)

    def _drop(self, *, in_order: bool) -> None:
        if self._ended:
            return
        self._ended = True
        self._chunks.clear()
        if self.sock is not None:
            self._stop_reading()
            if self._out is not None:
                self._loop.remove_writer(self._fileno())
                self._out = None
            if in_order:
                self.sock.close()
            else:
                reset(self.sock)
        self.traffic.active -= 1
        self._on_end(self)
