"""One end of a connection between a program and its machine's receiver."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Sequence

from rpclib_zmq.zmtp import Frame, Inbound, handshake, prefix

_READ = 127 * 1024
"""Bytes read at once: less than what malloc would map anew each time."""
_AT_ONCE = 64
"""Pieces written at once."""


class Wire:
    """Messages in and out of a connected socket, without ever waiting for it.

    ``on_message(frames)`` gets each message that came. ``watch(True)`` asks for `write` to be called whenever the
    socket can be written to, until that has written everything. It speaks as a ZeroMQ socket of the type ``role``.
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
        """What the socket had no room for. Never empty before the other end takes messages."""
        self.ended = False
        """The other end is gone: nothing more can be sent, and when `read` finds nothing, nothing comes."""
        try:
            connected.send(handshake(role))
        except OSError:
            self.ended = True

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, frames: Sequence[Frame]) -> bool:
        """Send one message, now or when there is room. False: the other end is known to be gone."""
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
        """Write more of what was not sent. Returns whether some is left."""
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
        """Read once, and hand over the messages that are complete. False: there is nothing, see `ended`.

        Raises zmtp.Malformed for what is no message, after handing over those before it.
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
        """Close, waiting up to ``linger`` seconds for the other end to make room for what was not sent."""
        if linger and self._unsent:
            with contextlib.suppress(OSError):
                self._socket.settimeout(linger)
                self._socket.sendall(b"".join(self._unsent))
        self._unsent.clear()
        self._socket.close()
