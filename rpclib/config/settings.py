"""Configuration: from a file, the environment, a URL and keywords to checked settings and driver options.

In rising order: defaults, a TOML file (``rpclib.toml`` in the working directory, or the one ``RPCLIB_CONFIG``
names), the environment (``RPCLIB_*``), the query of the URL, keywords. What is not understood is an error that
names its place, wherever it comes from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from rpclib.address import DEFAULT_EXCHANGE, EXCHANGE_MAX, check_name
from rpclib.config import drivers, sources
from rpclib.config.sources import Given, Layer
from rpclib.driver import Driver
from rpclib.errors import ConfigError, DriverUnavailable
from rpclib.url import TransportURL

_Model = TypeVar("_Model", bound=BaseModel)


def _exchange(name: str) -> str:
    try:
        check_name("exchange", name, EXCHANGE_MAX)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return name


class Settings(BaseModel):
    """What can be configured beside the options of the driver. Times are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    url: str | None = Field(None, description="The backend: scheme://user@host:port/path", examples=["fake://"])
    exchange: Annotated[str, AfterValidator(_exchange)] = Field(
        DEFAULT_EXCHANGE, description="The area within which topics are distinct"
    )
    timeout: float = Field(60.0, gt=0, description="Seconds a call may take, all waiting included")
    connect_timeout: float = Field(10.0, gt=0, description="Seconds to try the hosts of the URL when connecting")
    route_grace: float = Field(1.0, ge=0, description="Seconds a call waits for a server to appear")
    workers: int = Field(64, ge=1, description="Requests a server works on at the same time")
    grace: float = Field(10.0, ge=0, description="Seconds a stopping server gives to running requests")
    password: SecretStr | None = Field(None, description="The password for the URL's user, unless the URL has it")
    password_file: Path | None = Field(None, description="A file that holds the password and nothing else")


@dataclass(frozen=True)
class Resolved:
    """A complete configuration, which the driver has found possible.

    ``url`` says where to connect: with its password, and without its query, which went into ``settings`` and
    ``options`` (an instance of ``driver.options``). ``sources`` tells where a value that is no default was
    given: ``{"timeout": "RPCLIB_TIMEOUT", "amqp.heartbeat": "heartbeat in the URL"}``.
    """

    url: TransportURL
    driver: type[Driver]
    options: BaseModel = field(repr=False)
    settings: Settings
    sources: Mapping[str, str]

    def __post_init__(self) -> None:
        self.driver.check(self.url, self.options)


def resolve(
    url: str | TransportURL | None = None,
    *,
    driver: type[Driver] | None = None,
    options: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> Resolved:
    """Read every source and check the result.

    ``driver`` takes the place of the installed driver of the URL's scheme; ``options`` are its options;
    ``keywords`` are fields of `Settings`, None meaning not given. Raises ConfigError with one line for each
    problem and without secrets.
    """
    file = sources.read_file()
    environment = sources.variables(Settings, sources.PREFIX)
    text, where = sources.choose_url(url, environment, file)
    parsed = sources.parse_url(text, where)
    chosen = drivers.load(parsed.scheme) if driver is None else drivers.check(driver)
    if clash := sorted(Settings.model_fields.keys() & chosen.options.model_fields.keys()):
        raise DriverUnavailable(
            f"the {parsed.scheme} driver calls an option {clash[0]}, which is a setting of rpclib"
        )
    names = sources.Names(parsed.scheme, Settings.model_fields.keys(), chosen.options.model_fields.keys())
    problems: list[str] = []
    layers = (
        sources.from_file(file, names, problems),
        sources.from_environment(environment, chosen.options, names, problems),
        sources.from_url(parsed, where, names, problems),
        sources.from_keywords(keywords, options or {}, names, problems),
    )
    given = {name: one for layer in layers for name, one in layer.settings.items()}
    given_options = {name: one for layer in layers for name, one in layer.options.items()}
    given["url"] = Given(str(parsed), where)
    settings = _build(Settings, given, problems)
    built = _build(chosen.options, given_options, problems)
    if settings is None or built is None or problems:
        raise ConfigError("\n".join(problems))
    return Resolved(
        url=replace(parsed, password=_password(layers, settings), query=()),
        driver=chosen,
        options=built,
        settings=settings,
        sources={name: one.where for name, one in given.items()}
        | {f"{parsed.scheme}.{name}": one.where for name, one in given_options.items()},
    )


def is_secret(model: type[BaseModel], name: str) -> bool:
    """True for a field whose value must not be shown."""
    kind = str(model.model_fields[name].annotation)
    return "Secret" in kind or ("Path" not in kind and re.search("pass|secret|token|key", name, re.I) is not None)


def _build(model: type[_Model], given: Mapping[str, Given], problems: list[str]) -> _Model | None:
    try:
        return model.model_validate({name: one.value for name, one in given.items()})
    except ValidationError as error:
        for found in error.errors(include_url=False, include_context=False):
            name = str(found["loc"][0]) if found["loc"] else ""
            where = given[name].where if name in given else name or model.__name__
            problems.append(f"{where}: {_explain(found, name in model.model_fields and is_secret(model, name))}")
        return None


def _explain(found: Mapping[str, Any], secret: bool) -> str:
    own = found["type"] in ("value_error", "assertion_error")  # a validator's own words, which may quote the value
    if secret and own:
        return "not valid"
    text: str = found["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    text = text.removeprefix("Input ")
    if secret or own or found["type"] == "missing":
        return text
    shown = repr(found["input"])
    return f"{text}, not {shown if len(shown) <= 40 else shown[:40] + '...'}"


def _password(layers: Iterable[Layer], settings: Settings) -> str | None:
    """The password of the highest layer that has one, or names a file with one."""
    for layer in reversed(list(layers)):
        given = layer.settings
        if "password" in given and "password_file" in given:
            both = f"{given['password'].where} and {given['password_file'].where}"
            raise ConfigError(f"{both} both give a password: keep one")
        if "password" in given and settings.password is not None:
            return settings.password.get_secret_value()
        if "password_file" in given and settings.password_file is not None:
            return _read_password(settings.password_file, given["password_file"].where)
    return None


def _read_password(path: Path, where: str) -> str:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{where}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: {path} is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")


def describe(resolved: Resolved) -> list[tuple[str, Any, str]]:
    """Each setting and driver option as (name, value, source), for showing: secrets read ``***``."""
    rows: list[tuple[str, Any, str]] = []
    for prefix, values in (("", resolved.settings), (f"{resolved.url.scheme}.", resolved.options)):
        for name in type(values).model_fields:
            source = resolved.sources.get(prefix + name, "default")
            rows.append((prefix + name, _shown(values, name), source))
    return rows


def sample(schemes: Iterable[str]) -> str:
    """An ``rpclib.toml`` with everything that can be set, commented out, with its default and its meaning.

    It has a table for each scheme; raises as `rpclib.config.drivers.load` where a driver cannot be used.
    """
    lines = ["# Configuration of rpclib. Environment variables (RPCLIB_TIMEOUT), the query of the URL and"]
    lines += ["# keywords of connect() override it. Everything below shows its default.", "", *_sample(Settings)]
    for scheme in schemes:
        prefix = sources.prefix_of(scheme)
        lines += [f"[{scheme}]", f"# Options of {scheme}:// URLs; in the environment {prefix}<OPTION>.", ""]
        lines += _sample(drivers.load(scheme).options)
    return "\n".join(lines).rstrip() + "\n"


def _shown(values: BaseModel, name: str) -> Any:
    value = getattr(values, name)
    if value is not None and is_secret(type(values), name):
        return "***"
    return value if value is None or isinstance(value, (bool, int, float, str, list)) else str(value)


def _sample(model: type[BaseModel]) -> Iterator[str]:
    for name, info in model.model_fields.items():
        if info.description:
            yield f"# {info.description}"
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        if default is None:
            default = info.examples[0] if info.examples else ""
        yield f"#{name} = {_toml(default)}"
        yield ""


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value if isinstance(value, bool | int | float | str) else str(value), ensure_ascii=False)
