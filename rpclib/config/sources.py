"""The places configuration comes from, and what each of them says.

A reader returns a `Layer` and adds one line to ``problems`` for each name that means nothing.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from pydantic import BaseModel
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from rpclib.config import drivers
from rpclib.errors import ConfigError
from rpclib.url import TransportURL

FILE = "rpclib.toml"
PREFIX = "RPCLIB_"

_RESERVED = re.compile(r"RPCLIB_(CONFIG$|TEST_)")


class Given(NamedTuple):
    """A value and the words for the place it comes from."""

    value: Any
    where: str


@dataclass
class Layer:
    settings: dict[str, Given] = field(default_factory=dict)
    options: dict[str, Given] = field(default_factory=dict)


class Names(NamedTuple):
    """What may be configured for this URL."""

    scheme: str
    settings: Iterable[str]
    options: Iterable[str]


class File(NamedTuple):
    name: str
    values: dict[str, Any]


def read_file() -> File:
    named = os.environ.get("RPCLIB_CONFIG")
    path = Path(named or FILE)
    if not named and not path.exists():
        return File(FILE, {})
    try:
        return File(str(path), tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        by = " (named by RPCLIB_CONFIG)" if named else ""
        raise ConfigError(f"cannot read {path}{by}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def variables(model: type[BaseModel], prefix: str) -> dict[str, Any]:
    """The fields of ``model`` that the environment sets; an empty variable sets nothing."""
    source = EnvSettingsSource(cast(type[BaseSettings], model), env_prefix=prefix, env_ignore_empty=True)
    try:
        return source()
    except SettingsError as error:
        raise ConfigError(f"{prefix}...: {error}; lists and tables are written as JSON there") from None


def prefix_of(scheme: str) -> str:
    """How the environment variables of a scheme's options begin."""
    return f"{PREFIX}{re.sub('[^a-z0-9]', '_', scheme).upper()}_"


def choose_url(
    url: str | TransportURL | None, environment: dict[str, Any], file: File
) -> tuple[str | TransportURL, str]:
    if url is not None:
        return url, "the URL"
    if "url" in environment:
        return environment["url"], "RPCLIB_URL"
    if "url" in file.values:
        return file.values["url"], f"the url in {file.name}"
    raise ConfigError(
        'no transport URL is configured: pass one, as in connect("fake://"), or set RPCLIB_URL, '
        f'or write url = "fake://" to {FILE}'
    )


def parse_url(text: str | TransportURL, where: str) -> TransportURL:
    if isinstance(text, TransportURL):
        return text
    try:
        return TransportURL.parse(text)
    except ConfigError as error:
        raise ConfigError(str(error) if where == "the URL" else f"{where}: {error}") from None


def from_file(file: File, names: Names, problems: list[str]) -> Layer:
    layer = Layer()
    for key, value in file.values.items():
        if key in names.settings:
            layer.settings[key] = Given(value, f"{key} in {file.name}")
        elif key == names.scheme and isinstance(value, dict):
            for option, inner in value.items():
                where = f"{option} in [{key}] of {file.name}"
                _put(layer.options, option, Given(inner, where), names.options, problems)
        elif not isinstance(value, dict):
            problems.append(_unknown(f"{key} in {file.name}", key, names.settings))
        elif key not in (known := drivers.schemes()):  # the table of another driver is its own business
            problems.append(_unknown(f"[{key}] in {file.name}", key, [*known, names.scheme]))
    return layer


def from_environment(
    settings: dict[str, Any], options: type[BaseModel], names: Names, problems: list[str]
) -> Layer:
    prefix = prefix_of(names.scheme)
    layer = Layer(
        {name: Given(value, PREFIX + name.upper()) for name, value in settings.items()},
        {name: Given(value, prefix + name.upper()) for name, value in variables(options, prefix).items()},
    )
    known = {PREFIX + name.upper() for name in names.settings} | {prefix + name.upper() for name in names.options}
    for variable in os.environ:
        if variable.startswith(PREFIX) and variable not in known and not _RESERVED.match(variable):
            others = [prefix_of(scheme) for scheme in drivers.schemes() if scheme != names.scheme]
            if not variable.startswith(tuple(others)):
                problems.append(_unknown(variable, variable, known))
    return layer


def from_url(url: TransportURL, where: str, names: Names, problems: list[str]) -> Layer:
    layer = Layer()
    allowed = set(names.settings) - {"url", "password"}
    for key, value in url.query:
        one = Given(value, f"{key} in {where}")
        if key in allowed:
            layer.settings[key] = one
        else:
            _put(layer.options, key, one, names.options, problems, also=allowed)
    if url.password is not None:
        layer.settings["password"] = Given(url.password, where)
    return layer


def from_keywords(
    keywords: Mapping[str, Any], options: Mapping[str, Any], names: Names, problems: list[str]
) -> Layer:
    layer = Layer()
    for key, value in keywords.items():
        if value is not None:
            _put(layer.settings, key, Given(value, f"keyword {key}"), names.settings, problems)
    for key, value in options.items():
        _put(layer.options, key, Given(value, f"options[{key!r}]"), names.options, problems)
    return layer


def _put(
    into: dict[str, Given],
    name: str,
    one: Given,
    known: Iterable[str],
    problems: list[str],
    also: Iterable[str] = (),
) -> None:
    if name in known:
        into[name] = one
    else:
        problems.append(_unknown(one.where, name, [*known, *also]))


def _unknown(where: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known := sorted(known), n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"
    return f"{where}: unknown; {hint}"
