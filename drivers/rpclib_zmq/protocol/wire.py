"""One end of a local connection between a program and the receiver."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Sequence

from rpclib_zmq.protocol.zmtp import Frame, Inbound, handshake, prefix

_READ = 127 * 1024
"""Bytes per read: below the size for which malloc maps new memory each time."""
_AT_ONCE = 64
"""Pieces per write."""


class Wire:
    """Sends and receives messages over a connected socket without blocking, as a ZeroMQ socket of type ``role``.

    ``on_message(frames)`` gets each message. ``watch(True)`` asks to call `write` whenever the socket is writable,
    until `write` has written everything.
    """

    def __init__(
        self,
        connected: socket.socket,
        role: bytes,
        on_message: Callable[[list[Frame]], None],
        watch: Callable[[bool], None],
        longest: int,
    ) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._recv = connected.recv
        self._send = connected.send
        self._inbound = Inbound(on_message, self._on_ready, longest)
        self._watch = watch
        self._unsent: deque[Frame | memoryview] = deque([b""])
        """Data not yet written. Never empty before the other end is ready."""
        self.ended = False
        """Whether the other end is gone. Nothing can be sent; data that already arrived can still be read."""
        try:
            connected.send(handshake(role))
        except OSError:
            self.ended = True

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, frames: Sequence[Frame]) -> bool:
        """Send one message, now or when the socket is writable. False: the other end is known to be gone."""
        if len(frames) == 1:
            self._put(prefix(len(frames[0])) + frames[0])
        else:
            idle = not self._unsent
            last = len(frames) - 1
            for number, frame in enumerate(frames):
                self._unsent += (prefix(len(frame), number < last), frame)
            if idle and self.write():
                self._watch(True)
        return not self.ended

    def write(self) -> bool:
        """Write unsent data. Returns whether some is left."""
        unsent = self._unsent
        try:
            while unsent:
                sent = self._socket.sendmsg([unsent[number] for number in range(min(len(unsent), _AT_ONCE))])
                while unsent and sent >= len(unsent[0]):
                    sent -= len(unsent.popleft())
                if sent:
                    unsent[0] = memoryview(unsent[0])[sent:]
        except BlockingIOError:
            return True
        except OSError:
            self.ended = True
            unsent.clear()
        return False

    def _on_ready(self) -> None:
        if self.write():
            self._watch(True)

    def _put(self, data: bytes) -> None:
        if self._unsent:
            self._unsent.append(data)
            return
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.ended = True
            return
        if sent < len(data):
            self._unsent.append(memoryview(data)[sent:])
            self._watch(True)

    def read(self) -> bool:
        """Read once, and deliver the complete messages. False: nothing to read, see `ended`.

        Raises zmtp.Malformed for malformed data, after delivering the messages before it.
        """
        inbound = self._inbound
        try:
            if inbound.room is not None:
                if size := self._socket.recv_into(inbound.room):
                    inbound.filled(size)
                    return True
            elif data := self._recv(_READ):
                inbound.feed(data)
                return True
        except BlockingIOError:
            return False
        except OSError:
            pass
        self.ended = True
        return False

    def close(self, linger: float = 0.0) -> None:
        """Close after writing unsent data for up to ``linger`` seconds."""
        if linger and self._unsent:
            with contextlib.suppress(OSError):
                self._socket.settimeout(linger)
                self._socket.sendall(b"".join(self._unsent))
        self._unsent.clear()
        self._socket.close()
