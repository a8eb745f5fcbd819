"""What a server can be asked for: `expose` marks methods, `Endpoints` finds the one a request means."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from rpclib.address import Target, parse_version
from rpclib.errors import ConfigError, InvalidArguments, NoSuchMethod, UnsupportedVersion
from rpclib.wire.request import Request

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__rpclib_exposed__"
_DEFAULT_VERSION = "1.0"
_SHOWN = 200
"""How much of a client's words an error repeats, in characters."""


@overload
def expose(function: F, /) -> F: ...
@overload
def expose(*, idempotent: bool = False) -> Callable[[F], F]: ...
def expose(function: F | None = None, /, *, idempotent: bool = False) -> F | Callable[[F], F]:
    """Make a method of an endpoint class callable by clients. Nothing else is.

    Coroutine functions run on the loop, plain functions on a bounded thread pool. ``idempotent``: running it
    twice does no harm, so a request that may have run before is run again instead of refused.
    """

    def mark(method: F) -> F:
        if not inspect.isfunction(method):
            raise ConfigError(f"@expose goes on functions (outermost), not on {type(method).__name__}")
        if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
            raise ConfigError(f"{method.__qualname__} is a generator; streams are not supported yet")
        setattr(method, _MARK, {"idempotent": idempotent})
        return method

    return mark if function is None else mark(function)


class Method:
    """One exposed method, ready to be called with checked arguments."""

    __slots__ = ("_accepts_any", "_required", "function", "idempotent", "is_async", "name", "names", "signature")

    def __init__(self, name: str, function: Callable[..., Any], idempotent: bool) -> None:
        self.name = name
        self.function = function
        self.idempotent = idempotent
        self.is_async = inspect.iscoroutinefunction(function)
        self.signature = inspect.signature(function)
        parameters = self.signature.parameters.values()
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise ConfigError(f"{name} has the positional parameter {parameter}; arguments travel by name only")
        named = [item for item in parameters if item.kind is not item.VAR_KEYWORD]
        self.names = frozenset(item.name for item in named)
        """Names of the parameters. Arguments of exactly these names fit."""
        self._required = frozenset(item.name for item in named if item.default is item.empty)
        self._accepts_any = any(item.kind is item.VAR_KEYWORD for item in parameters)

    def check(self, arguments: dict[str, Any]) -> None:
        """Raise InvalidArguments, naming each, unless they fit the signature."""
        given = arguments.keys()
        if given >= self._required and (self._accepts_any or given <= self.names):
            return
        problems = []
        if missing := [name for name in self.signature.parameters if name in self._required and name not in given]:
            problems.append(f"missing {', '.join(missing)}")
        if not self._accepts_any and (unexpected := sorted(given - self.names)):
            problems.append(f"unexpected {', '.join(unexpected)[:_SHOWN]}")
        raise InvalidArguments(f"{self.name}{self.signature}: {'; '.join(problems)}")


class _Endpoint:
    """One endpoint object: its namespace, version and methods."""

    def __init__(self, instance: object) -> None:
        if isinstance(instance, type):
            raise ConfigError(f"{instance.__name__} is a class: pass an instance of it as the endpoint")
        target = getattr(instance, "target", None)
        if target is not None and not isinstance(target, Target):
            raise ConfigError(f"{type(instance).__name__}.target must be a Target(namespace=..., version=...)")
        self.namespace = target.namespace if target else None
        self.version = (target.version if target else None) or _DEFAULT_VERSION
        self.major, self.minor = parse_version(self.version)
        self.methods = {method.name: method for method in _methods(instance)}
        if not self.methods:
            raise ConfigError(f"{type(instance).__name__} exposes nothing: put @rpclib.expose on its methods")

    def implements(self, version: tuple[int, int]) -> bool:
        return self.major == version[0] and self.minor >= version[1]


class Endpoints:
    """All endpoints of one server. Looked up once per request, so the table is made once."""

    def __init__(self, instances: Iterable[object]) -> None:
        if not isinstance(instances, Iterable):
            raise ConfigError(f"endpoints are given as a list, e.g. [{type(instances).__name__}()]")
        self._by_namespace: dict[str | None, list[_Endpoint]] = {}
        for instance in instances:
            endpoint = _Endpoint(instance)
            others = self._by_namespace.setdefault(endpoint.namespace, [])
            for other in others:
                if other.major == endpoint.major and (both := other.methods.keys() & endpoint.methods.keys()):
                    raise ConfigError(
                        f"two endpoints of namespace {endpoint.namespace!r}, version {endpoint.major}.x expose "
                        f"{', '.join(sorted(both))}"
                    )
            others.append(endpoint)
        if not self._by_namespace:
            raise ConfigError("a server needs at least one endpoint")
        self._found: dict[tuple[str | None, str | None, str], Method] = {}

    def find(self, request: Request) -> Method:
        """The method a request means, its arguments checked.

        Raises NoSuchMethod, UnsupportedVersion, InvalidArguments.
        """
        key = (request.namespace, request.version, request.method)
        method = self._found.get(key)
        if method is None:
            method = self._search(*key)
            if len(self._found) < 1000:  # versions are the client's words: bound what they can make us keep
                self._found[key] = method
        if request.args.keys() != method.names:
            method.check(request.args)
        return method

    def methods(self) -> list[tuple[str | None, str, Method]]:
        """(namespace, version, method) of everything exposed, for banners."""
        return [
            (endpoint.namespace, endpoint.version, method)
            for endpoints in self._by_namespace.values()
            for endpoint in endpoints
            for method in endpoint.methods.values()
        ]

    def _search(self, namespace: str | None, version: str | None, name: str) -> Method:
        endpoints = self._by_namespace.get(namespace, [])
        having = [endpoint for endpoint in endpoints if name in endpoint.methods]
        if not having:
            raise NoSuchMethod(self._unknown(namespace, name))
        if version is None:
            return having[0].methods[name]
        try:
            wanted = parse_version(version)
        except ConfigError as error:
            raise UnsupportedVersion(str(error)) from None
        for endpoint in having:
            if endpoint.implements(wanted):
                return endpoint.methods[name]
        offered = ", ".join(endpoint.version for endpoint in having)
        raise UnsupportedVersion(f"{name} was asked for in version {version}; this server implements {offered}")

    def _unknown(self, namespace: str | None, name: str) -> str:
        shown = name[:_SHOWN]
        if namespace not in self._by_namespace:
            spaces = ", ".join(repr(space) for space in self._by_namespace)
            return f"no endpoint of namespace {(namespace or '')[:_SHOWN]!r} here (there is {spaces})"
        names = [method for endpoint in self._by_namespace[namespace] for method in endpoint.methods]
        near = difflib.get_close_matches(shown, names, 1)
        hint = f'; did you mean "{near[0]}"?' if near else f"; there is {', '.join(sorted(names)[:20])}"
        return f'no method "{shown}" is exposed here{hint}'


def _methods(instance: object) -> Iterable[Method]:
    cls = type(instance)
    for name in dir(cls):
        found = inspect.getattr_static(cls, name)
        function = getattr(found, "__func__", found)  # what a static or class method wraps
        mark = getattr(function, _MARK, None)
        if mark is not None:
            yield Method(name, getattr(instance, name), mark["idempotent"])
