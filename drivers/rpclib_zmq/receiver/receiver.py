"""The receiver: one process per machine, which delivers messages to the programs there."""

from __future__ import annotations

import json
import logging
import os
import resource
import secrets
import signal
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from time import monotonic
from typing import Any

import zmq

from rpclib_zmq.options import NetworkOptions
from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import PROTOCOL, decode, read_json
from rpclib_zmq.protocol.zmtp import Frame
from rpclib_zmq.receiver import limits
from rpclib_zmq.receiver.elsewhere import Nowhere
from rpclib_zmq.receiver.entrance import Connection, Entrance
from rpclib_zmq.receiver.network.hosts import Hosts
from rpclib_zmq.receiver.network.peers import Peers
from rpclib_zmq.receiver.router import Router
from rpclib_zmq.receiver.sources import Sources
from rpclib_zmq.receiver.status import status_of
from rpclib_zmq.receiver.watch import Watch
from rpclib_zmq.rundir import RunDir

log = logging.getLogger("rpclib_zmq")

_FIRST_SESSION = 2.0
"""Seconds for the first program to connect before the idle time begins."""
_FIRST_LINKS = 1.0
"""Seconds to wait for other receivers before this one is ready."""


class Receiver:
    """Runs in the main thread of its own process. The receiver never forks: the lock would be inherited."""

    def __init__(
        self, run: RunDir, options: NetworkOptions, *, idle_exit: float | None = None, grace: float = 10.0
    ) -> None:
        self.run_dir = run
        self._options = options
        self._idle_exit = idle_exit
        self._grace = grace
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        peers = Peers() if options.listen or options.peers or options.matchmaker else None
        self._router = Router(secrets.token_hex(8), Nowhere() if peers is None else peers)
        self._watch = Watch(self._on_signal)
        self._sources = Sources()
        self._entrance = Entrance(run.socket, self._sources, self._receive, self._on_end)
        self._leave_by: float | None = None
        self._said_goodbye = False
        self._strangers = 0
        self._hosts: Hosts | None = None
        if peers is not None:
            self._hosts = Hosts(self._router, peers, self._context, options)

    def run(self, ready: Callable[[], None]) -> None:
        """Serve until `leave`, or until idle for long enough. Calls ``ready`` once connections are accepted.

        The caller holds the run directory's receiver lock. Raises OSError when the socket cannot be
        made and zmq.ZMQError when the port cannot be had.
        """
        try:
            _raise_file_limit()
            self._entrance.open()
            self._sources.add(self._watch.fileno(), self._watch.handle)
            if self._hosts is not None:
                self._hosts.start(self._sources.add)
            log.info("receiver %s (pid %d) serves %s", self._router.node, os.getpid(), self.run_dir.path)
            self._loop(ready)
        finally:
            self._turn_away()
            self._entrance.close()
            self._sources.close()
            self._watch.close()
            if self._hosts is not None:
                self._hosts.close()
            self._context.destroy(linger=200)
            log.info("receiver %s left", self._router.node)

    def _loop(self, ready: Callable[[], None]) -> None:
        router, hosts, wait = self._router, self._hosts, self._sources.wait
        now = began = next_tick = monotonic()
        idle_since = began + _FIRST_SESSION
        is_ready = False
        while True:
            wait(max(0.0, next_tick - now))
            router.flush()
            now = monotonic()
            if hosts is not None:
                hosts.flush()
            if not is_ready and (hosts is None or hosts.tried() or now - began > _FIRST_LINKS):
                is_ready = True
                ready()
            if router.sessions:
                idle_since = now
            if now >= next_tick:
                self._tick(now)
                next_tick = now + limits.TICK
                if self._idle_exit is not None and now - idle_since >= self._idle_exit:
                    return
            if self._leave_by is not None and self._finished(self._leave_by, now):
                return

    def _tick(self, now: float) -> None:
        self._router.tick(now)
        self._entrance.tick(now)
        if self._hosts is not None:
            self._hosts.tick(now)

    def _finished(self, leave_by: float, now: float) -> bool:
        """Whether a leaving receiver may exit: no request runs, and every session has confirmed its BYE."""
        router = self._router
        if not self._said_goodbye and router.wind_down() and (self._hosts is None or not self._hosts.mesh.busy()):
            self._said_goodbye = True
            router.say_goodbye()
        return now >= leave_by or (self._said_goodbye and not router.sessions)

    def _receive(self, connection: Connection, frames: list[Frame]) -> None:
        session = connection.session
        if session is None or session.gone:
            self._stranger(connection, frames)
        else:
            self._router.receive(session, frames, monotonic())

    def _on_end(self, connection: Connection, reason: str) -> None:
        session = connection.session
        if session is not None and not session.gone:
            self._router.drop(session, reason)

    def _on_death(self, connection: Connection) -> None:
        """The process of a connection ended. A child process may still hold the connection open."""
        self._entrance.drain(connection)
        self._on_end(connection, "its process died")

    def _stranger(self, connection: Connection, frames: list[Frame]) -> None:
        """Handle a message outside of a session: a greeting, an operator's query, or garbage."""
        head = decode(bytes(frames[0]))
        if head is None or len(frames) != 2 or len(frames[1]) > 4096:
            self._strangers += 1
        elif head.kind == header.HELLO:
            self._hello(connection, read_json(bytes(frames[1])))
        elif head.kind == header.STATUS:
            self._reply(connection, header.STATUS, self.status())
        elif head.kind == header.QUIT:
            self._reply(connection, header.QUIT, {"pid": os.getpid()})
            self.leave()
        else:
            self._strangers += 1

    def _hello(self, connection: Connection, hello: dict[str, Any]) -> None:
        if self._leave_by is not None:
            self._reply(connection, header.LEAVING, {})
            return
        if hello.get("protocol") != PROTOCOL:
            self._reply(connection, header.WELCOME, self._greeting())
            return
        pid = connection.pid
        session = self._router.greet(connection.send, pid, _printable(hello.get("program")), monotonic())
        connection.session = session
        try:
            session.unwatch = self._watch.process(pid, lambda: self._on_death(connection))
        except ProcessLookupError:
            self._on_end(connection, "its process died")
            return
        self._reply(connection, header.WELCOME, self._greeting() | {"session": session.number})

    def _greeting(self) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL,
            "version": package_version(),
            "pid": os.getpid(),
            "node": self._router.node,
            "window": limits.WINDOW,
            "window_bytes": limits.WINDOW_BYTES,
            "max_body": limits.MAX_BODY,
            "listen": self._options.listen,
            "denied": [] if self._hosts is None else self._hosts.denied(),
        }

    def _reply(self, connection: Connection, kind: int, content: dict[str, Any]) -> None:
        connection.send((header.greeting(kind), json.dumps(content).encode()))

    def status(self) -> dict[str, Any]:
        return {
            **self._greeting(),
            "run_dir": str(self.run_dir.path),
            "leaving": self._leave_by is not None,
            "strangers": self._strangers,
            **status_of(self._router),
            **({} if self._hosts is None else self._hosts.mesh.status()),
        }

    def leave(self) -> None:
        """Leave when no request runs, or at the end of the grace. The second call leaves at once."""
        if self._leave_by is not None:
            self._leave_by = 0.0
            return
        log.info("receiver %s is leaving", self._router.node)
        self._leave_by = monotonic() + self._grace
        if self._hosts is not None:
            self._hosts.mesh.withdraw()

    def _on_signal(self, number: int) -> None:
        if number != signal.SIGHUP:
            self.leave()
        elif self._hosts is not None:
            self._hosts.reload()

    def _turn_away(self) -> None:
        """Tell programs that connected at the last moment to start another receiver."""
        self._leave_by = 0.0
        self._entrance.stop()
        self._router.flush()


def package_version() -> str:
    try:
        return version("rpclib-messaging")
    except PackageNotFoundError:
        return "unknown"


def _printable(text: object) -> str:
    return "".join(char if char.isprintable() else "?" for char in str(text)[:80]) if text else "unknown"


def _raise_file_limit() -> None:
    """Raise the limit of open files: each program needs two descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
