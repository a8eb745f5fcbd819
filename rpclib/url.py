"""Transport URLs: ``scheme://user:password@host1:port,host2:port/path?option=value``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, quote, unquote, urlencode

from rpclib.errors import ConfigError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_HOSTNAME = re.compile(r"[A-Za-z0-9_.%-]+")
_SECRET_OPTION = re.compile(r"pass|secret|token|key", re.IGNORECASE)
_SAFE = "-._~"


@dataclass(frozen=True, slots=True)
class Host:
    """One ``host:port``. ``port`` is None where the URL names none; an IPv6 name has no brackets here."""

    name: str
    port: int | None = None

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class TransportURL:
    """A parsed URL. Printing it never shows a password; `reveal` does.

    ``path`` is decoded and without its leading slash: None when the URL has no path at all, "" for a bare
    slash. ``query`` holds the options as text, in order.
    """

    scheme: str
    hosts: tuple[Host, ...] = ()
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    path: str | None = None
    query: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> TransportURL:
        """Read a URL. Raises ConfigError, which never repeats the text: it may hold a password."""
        if not isinstance(text, str) or "://" not in text:
            raise ConfigError(
                'a transport URL looks like "scheme://user:password@host:port/path?option=value", e.g. "fake://"'
            )
        if any(ord(char) < 33 or ord(char) == 127 for char in text):
            raise ConfigError("the transport URL contains a space or control character; percent-encode it")
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise ConfigError("the transport URL is not valid Unicode; percent-encode it as UTF-8")
        scheme, rest = text.split("://", 1)
        if not _SCHEME.fullmatch(scheme):
            raise ConfigError("the scheme of a transport URL is lower-case letters, digits, + . -")
        rest, _, fragment = rest.partition("#")
        if fragment:
            raise ConfigError(f'the {scheme} URL has a "#": percent-encode it as %23')
        rest, has_query, query = rest.partition("?")
        authority, slash, path = rest.partition("/")
        userinfo, at, hosts = authority.rpartition("@")
        if "@" in userinfo:
            raise ConfigError(f'the {scheme} URL has more than one "@": percent-encode it as %40 in a password')
        if "@" in path:  # most likely a password with a "/", half of which would be printed as the path
            raise ConfigError(f'the {scheme} URL has an "@" after a "/": percent-encode them as %40 and %2F')
        user, colon, password = userinfo.partition(":")
        return cls(
            scheme=scheme,
            hosts=_hosts(scheme, hosts),
            user=_decode(scheme, user) if at else None,
            password=_decode(scheme, password) if colon else None,
            path=_decode(scheme, path) if slash else None,
            query=_query(scheme, query) if has_query else (),
        )

    def reveal(self) -> str:
        """The URL with its password: for connecting, never for printing. `parse` restores an equal object."""
        return self._render(secret=False)

    @property
    def origin(self) -> str:
        """Scheme and hosts only, for messages."""
        return f"{self.scheme}://{','.join(map(str, self.hosts))}"

    def with_hosts(self, *hosts: Host) -> TransportURL:
        return replace(self, hosts=hosts)

    def __str__(self) -> str:
        return self._render(secret=True)

    def __repr__(self) -> str:
        return f"TransportURL({str(self)!r})"

    def _render(self, *, secret: bool) -> str:
        text = f"{self.scheme}://"
        if self.user is not None:
            text += quote(self.user, safe=_SAFE)
            if self.password is not None:
                text += ":***" if secret else ":" + quote(self.password, safe=_SAFE)
            text += "@"
        text += ",".join(map(str, self.hosts))
        if self.path is not None:
            text += "/" + quote(self.path, safe=_SAFE + "/")
        if self.query:
            pairs = [(k, "***" if secret and _SECRET_OPTION.search(k) else v) for k, v in self.query]
            text += "?" + urlencode(pairs, safe="*" if secret else "")
        return text


def _decode(scheme: str, text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ConfigError(f'the {scheme} URL has a "%" that starts no percent-encoding: write it as %25')
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ConfigError(f"the {scheme} URL has a percent-encoding that is not UTF-8") from None


def _hosts(scheme: str, text: str) -> tuple[Host, ...]:
    return tuple(_host(scheme, part) for part in text.split(",")) if text else ()


def _host(scheme: str, text: str) -> Host:
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ConfigError(f"the {scheme} URL has an IPv6 address without its closing bracket")
        try:
            ipaddress.IPv6Address(name.partition("%")[0])
        except ValueError:
            raise ConfigError(f"the {scheme} URL has brackets around something that is no IPv6 address") from None
        return Host(name, _port(scheme, port[1:]) if port else None)
    name, colon, port = text.partition(":")
    if ":" in port:
        raise ConfigError(f"the {scheme} URL has an IPv6 address without brackets: write [::1]:5672")
    if not name:
        raise ConfigError(f"the {scheme} URL has an empty host name")
    if not _HOSTNAME.fullmatch(name):
        raise ConfigError(f"the {scheme} URL has a host name with characters no host name has")
    return Host(name, _port(scheme, port) if colon else None)


def _port(scheme: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise ConfigError(f"the {scheme} URL has a port that is no number from 1 to 65535")
    return int(text)


def _query(scheme: str, text: str) -> tuple[tuple[str, str], ...]:
    _decode(scheme, text)
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict") if text else []
    except ValueError:
        raise ConfigError(f"the {scheme} URL's options must read ?name=value&name=value") from None
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise ConfigError(f'the {scheme} URL gives the option "{key}" twice')
        seen.add(key)
    return tuple(pairs)
