"""Matchmakers list the receivers. Topics are not their concern: receivers exchange those.

A matchmaker is a plugin in the entry-point group ``rpclib.matchmakers``, named by the part of the receiver's
``matchmaker`` option before the first colon and made with the part after it.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path

from stevedore import DriverManager
from stevedore.exception import NoMatches

from rpclib.errors import ConfigError

log = logging.getLogger("rpclib_zmq")

GROUP = "rpclib.matchmakers"
_EVERY = 1.0


class Matchmaker(ABC):
    """Knows the addresses, ``host:port``, of other receivers.

    Made with the argument that follows its name in the option; raises ConfigError for an invalid argument.
    """

    @abstractmethod
    def hosts(self, own: str | None) -> Collection[str]:
        """Publish the address of this receiver (None: it does not listen) and return the addresses of all.

        Called once a second in a separate thread; may block. An exception is logged, and the previous result stays
        in force: traffic continues without the store.
        """


class Static(Matchmaker):
    """``static:host:port,host:port``"""

    def __init__(self, argument: str) -> None:
        self._hosts = [part for part in argument.split(",") if part]

    def hosts(self, own: str | None) -> Collection[str]:
        return self._hosts


class File(Matchmaker):
    """``file:PATH``: one address a line. The file is read again when it changes."""

    def __init__(self, argument: str) -> None:
        self._path = Path(argument)
        self._seen: tuple[int, int] | None = None
        self._hosts: list[str] = []

    def hosts(self, own: str | None) -> Collection[str]:
        found = self._path.stat()
        if (found.st_mtime_ns, found.st_size) != self._seen:
            lines = (line.partition("#")[0].strip() for line in self._path.read_text("utf-8").splitlines())
            self._hosts = [line for line in lines if line]
            self._seen = (found.st_mtime_ns, found.st_size)
        return self._hosts


class Redis(Matchmaker):
    """``redis://HOST:PORT/DB``: each receiver keeps a key there, which expires when the receiver is gone."""

    _PREFIX = "rpclib:zmq:receiver:"
    _LIFETIME = 10

    def __init__(self, argument: str) -> None:
        try:
            import redis  # an optional package, needed by this matchmaker alone
        except ImportError:
            raise ConfigError('the redis matchmaker needs the package "redis": pip install redis') from None
        self._client = redis.Redis.from_url(f"redis:{argument}", socket_timeout=2, socket_connect_timeout=2)

    def hosts(self, own: str | None) -> Collection[str]:
        if own is not None:
            self._client.set(self._PREFIX + own, "", ex=self._LIFETIME)
        return [key.decode()[len(self._PREFIX) :] for key in self._client.scan_iter(match=self._PREFIX + "*")]


def load(option: str) -> Matchmaker:
    """The matchmaker named by the option. Raises ConfigError."""
    name, _, argument = option.partition(":")
    try:
        found: object = DriverManager[object](GROUP, name, invoke_on_load=True, invoke_args=(argument,)).driver
    except NoMatches:
        raise ConfigError(f'no matchmaker is called "{name}": there are static, file and redis') from None
    if not isinstance(found, Matchmaker):
        raise ConfigError(f'the matchmaker "{name}" is not a rpclib_zmq.matchmakers.Matchmaker')
    return found


class Discovery:
    """Asks a matchmaker once a second, in a thread. ``hosts`` is its latest answer."""

    def __init__(self, matchmaker: Matchmaker, own: str | None) -> None:
        self.hosts: frozenset[str] = frozenset()
        self._matchmaker = matchmaker
        self._own = own
        self._stop = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="rpclib-zmq-matchmaker", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            try:
                self.hosts = frozenset(self._matchmaker.hosts(self._own))
            except Exception as error:
                if not self._failing:
                    log.warning("the matchmaker fails (%s); the receivers known so far stay", error)
                self._failing = True
            else:
                if self._failing:
                    log.info("the matchmaker answers again")
                self._failing = False
            if self._stop.wait(_EVERY):
                return
