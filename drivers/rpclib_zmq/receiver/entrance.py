"""The local socket of the receiver, and the connections of programs."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic

from rpclib_zmq.protocol.wire import Wire
from rpclib_zmq.protocol.zmtp import Frame, Malformed
from rpclib_zmq.receiver import limits
from rpclib_zmq.receiver.session import Session
from rpclib_zmq.receiver.sources import Sources

log = logging.getLogger("rpclib_zmq")

_BACKLOG = 1024
_FINAL_WRITE = 0.2
"""Seconds, for all connections together, to write unsent data when the entrance closes."""
_CREDENTIALS = struct.Struct("3i")


class Connection:
    """One connection of a program or an operator. The session is set after the greeting of a program."""

    def __init__(self, accepted: socket.socket, sources: Sources, on_message: OnMessage) -> None:
        self.session: Session | None = None
        self.since = monotonic()
        self._sources = sources
        self._wire = Wire(
            accepted, b"ROUTER", lambda frames: on_message(self, frames), self._watch, limits.MAX_FRAME
        )
        self._credentials = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.send = self._wire.send
        self.read = self._wire.read
        self.fileno = self._wire.fileno

    @property
    def in_session(self) -> bool:
        return self.session is not None and not self.session.gone

    @property
    def pid(self) -> int:
        """The pid of the other end, from the kernel; 0 when it belongs to another pid namespace."""
        pid, _, _ = _CREDENTIALS.unpack(self._credentials)
        return int(pid)

    @property
    def ended(self) -> bool:
        """Whether the other end is gone. Data that it sent before may still be unread."""
        return self._wire.ended

    def close(self, linger: float = 0.0) -> None:
        self._sources.remove(self.fileno())
        self._wire.close(linger)

    def _watch(self, wanted: bool) -> None:
        self._sources.when_writable(self.fileno(), self._write if wanted else None)

    def _write(self) -> None:
        if not self._wire.write():
            self._watch(False)


OnMessage = Callable[[Connection, list[Frame]], None]


class Entrance:
    """Accepts connections and reads them.

    ``on_message(connection, frames)`` gets every message. ``on_end(connection, reason)`` is called after the last
    message when the other end closed the connection.
    """

    def __init__(
        self, path: Path, sources: Sources, on_message: OnMessage, on_end: Callable[[Connection, str], None]
    ) -> None:
        self._path = path
        self._sources = sources
        self._on_message = on_message
        self._on_end = on_end
        self._connections: set[Connection] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._full = False
        """Whether accepting has stopped for lack of file descriptors."""

    def open(self) -> None:
        """Begin to accept. The caller holds the lock, so an existing socket belongs to a dead receiver.

        Raises OSError when the socket cannot be made.
        """
        self._path.unlink(missing_ok=True)
        with _umask(0o177):
            self._socket.bind(os.fsencode(self._path))
        self._socket.listen(_BACKLOG)
        self._sources.add(self._socket.fileno(), self.accept)

    def accept(self) -> None:
        """Accept all pending connections."""
        while True:
            try:
                accepted, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.error("no connection can be accepted: %s", error.strerror)
                self._sources.remove(self._socket.fileno())  # the socket stays readable
                self._full = True
                return
            connection = Connection(accepted, self._sources, self._on_message)
            self._connections.add(connection)
            self._sources.add(connection.fileno(), partial(self._read, connection))

    def tick(self, now: float) -> None:
        """Close connections without a greeting, and accept again."""
        for connection in list(self._connections):
            if not connection.in_session and now - connection.since > limits.INTRODUCTION:
                self._close(connection)
        self._accept_again()

    def drain(self, connection: Connection) -> None:
        """Read everything that an ended process has sent."""
        while connection.in_session and self._read(connection):
            pass

    def stop(self) -> None:
        """Accept the pending connections, read what they sent, and accept no others."""
        self._path.unlink(missing_ok=True)
        self.accept()
        for connection in list(self._connections):
            self._read(connection)

    def close(self) -> None:
        """Close everything."""
        until = monotonic() + _FINAL_WRITE
        for connection in self._connections:
            connection.close(max(0.001, until - monotonic()))
        self._connections.clear()
        self._sources.remove(self._socket.fileno())
        self._socket.close()

    def _read(self, connection: Connection) -> bool:
        """Read once. False: nothing to read, or the connection ended."""
        try:
            if connection.read():
                return True
            if not connection.ended:
                return False
            reason = "its connection is gone"
        except Malformed as error:
            reason = f"it sent {error}"
        self._close(connection)
        self._on_end(connection, reason)
        return False

    def _close(self, connection: Connection) -> None:
        self._connections.discard(connection)
        connection.close()
        self._accept_again()

    def _accept_again(self) -> None:
        if self._full:
            self._full = False
            self._sources.add(self._socket.fileno(), self.accept)


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
