"""Targets and addresses: programs name a `Target`, drivers route to an `Address`."""

from __future__ import annotations

import enum
import re
import socket
from dataclasses import dataclass, replace

from rpclib.errors import ConfigError

EXCHANGE_MAX = 60
TOPIC_MAX = 80
SERVER_MAX = 100
DEFAULT_EXCHANGE = "rpclib"

_WORD = re.compile(r"[A-Za-z0-9_-]+")
_SERVER = re.compile(r"[A-Za-z0-9_.:@-]+")
_VERSION = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?")


class Kind(enum.Enum):
    """How many subscribers of an address get a message."""

    ONE = "one"
    """Exactly one of them."""
    ALL = "all"
    """Each of them once."""
    INBOX = "inbox"
    """The one process that owns it. Its key is chosen by the driver."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a driver sends bytes. Names are already checked: a driver may build its own names from them.

    ``key`` is the server name (kind ONE; empty: any server of the topic) or the inbox token (kind INBOX).
    """

    kind: Kind
    exchange: str
    topic: str = ""
    key: str = ""

    @classmethod
    def inbox(cls, key: str) -> Address:
        """The address of the inbox with that key, in any process."""
        return cls(Kind.INBOX, "", key=key)

    def __str__(self) -> str:
        if self.kind is Kind.INBOX:
            return f"inbox {self.key}"
        name = f"{self.topic}.{self.key}" if self.key else self.topic
        suffix = " (all servers)" if self.kind is Kind.ALL else ""
        return f'"{name}" in exchange "{self.exchange}"{suffix}'


@dataclass(frozen=True, slots=True)
class Target:
    """What a program calls or serves.

    ``topic`` names the service, ``server`` one server of it (default when serving: the host name),
    ``exchange`` the area within which topics are distinct (default: the configuration's). An endpoint's
    ``target`` states its ``namespace`` and the ``version`` it implements, ``MAJOR.MINOR``.

    Raises ConfigError for a name that breaks the rules: exchange (60) and topic (80) of ``A-Za-z0-9_-``,
    server (100) also of ``. : @``.
    """

    topic: str | None = None
    server: str | None = None
    exchange: str | None = None
    namespace: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        if self.topic is not None:
            check_name("topic", self.topic, TOPIC_MAX, _WORD)
        if self.server is not None:
            check_name("server", self.server, SERVER_MAX, _SERVER)
        if self.exchange is not None:
            check_name("exchange", self.exchange, EXCHANGE_MAX, _WORD)
        if self.namespace is not None:
            check_name("namespace", self.namespace, TOPIC_MAX, _SERVER)
        if self.version is not None:
            parse_version(self.version)

    def within(self, exchange: str) -> Target:
        """This target with its exchange filled in."""
        return self if self.exchange is not None else replace(self, exchange=exchange)

    def one(self) -> Address:
        """The shared address of the topic, or the server's own where one is named."""
        return Address(Kind.ONE, self._exchange, self._topic, self.server or "")

    def all(self) -> Address:
        """The fanout address of the topic."""
        return Address(Kind.ALL, self._exchange, self._topic)

    @property
    def _exchange(self) -> str:
        return self.exchange or DEFAULT_EXCHANGE

    @property
    def _topic(self) -> str:
        if self.topic is None:
            raise ConfigError('a target needs a topic, e.g. Target("compute")')
        return self.topic

    def __str__(self) -> str:
        name = self.topic or "?"
        return f"{name}.{self.server}" if self.server else name


def check_name(what: str, value: object, longest: int, pattern: re.Pattern[str] = _WORD) -> None:
    """Raise ConfigError, naming the offending character, unless ``value`` is a legal name."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{what} must be a non-empty string, not {value!r}")
    if len(value) > longest:
        raise ConfigError(f"{what} {value[:20]!r}... has {len(value)} characters; at most {longest} are allowed")
    match = pattern.match(value)
    end = match.end() if match else 0
    if end != len(value):
        allowed = "letters, digits, _ and -" + (", and . : @" if pattern is _SERVER else "")
        raise ConfigError(f"{what} {value!r} contains {value[end]!r}; allowed are {allowed}")


def parse_version(text: str) -> tuple[int, int]:
    """``"1.2"`` or ``"1"`` as (major, minor); ConfigError for anything else."""
    match = _VERSION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(f'version {text!r:.40} is not of the form MAJOR.MINOR, e.g. "1.2"')
    return int(match[1]), int(match[2] or 0)


def default_server() -> str:
    """The host name, with characters a server name cannot hold replaced by ``-``."""
    return re.sub(r"[^A-Za-z0-9_.:@-]", "-", socket.gethostname())[:SERVER_MAX] or "localhost"
