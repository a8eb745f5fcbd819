"""The public names, and what importing them costs."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from importlib.metadata import requires

import pytest

import rpclib

MODULES = ["rpclib", *(f"rpclib.{name}" for name in ("sync", "testing", "driver", "address", "url", "errors"))]


def test_all_names_exist_and_nothing_else_is_offered() -> None:
    assert len(set(rpclib.__all__)) == len(rpclib.__all__)
    for name in rpclib.__all__:
        assert getattr(rpclib, name).__doc__, f"{name} has no docstring"
    offered = {
        name
        for name, value in vars(rpclib).items()
        if not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value))
    }
    assert offered == set(rpclib.__all__) - {"sync"}


def test_every_error_is_public() -> None:
    def below(cls: type[Exception]) -> set[type[Exception]]:
        return {cls}.union(*(below(sub) for sub in cls.__subclasses__()))

    own = {cls.__name__ for cls in below(rpclib.RpcError) if cls.__module__ == "rpclib.errors"}
    assert own - set(rpclib.__all__) == {"MaybeExecuted"}


@pytest.mark.parametrize("name", MODULES)
def test_public_modules_say_what_they_are(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for public, value in vars(module).items():
        if not public.startswith("_") and inspect.isclass(value) and value.__module__ == name:
            assert value.__doc__, f"{name}.{public} has no docstring"
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    assert function.__annotations__.keys() >= {"return"}, f"{public}.{method} is not typed"


def loaded(statement: str) -> set[str]:
    """The top-level packages in memory after ``statement``."""
    code = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    return set(done.stdout.split())


def test_importing_loads_no_driver_and_nothing_slow() -> None:
    packages = loaded("import rpclib")
    assert not packages & {"pydantic", "pydantic_settings", "stevedore", "pytest", "click", "rich"}
    assert not {name for name in packages if name.startswith("rpclib_")} - {"rpclib_messaging"}
    assert not packages & {"pika", "zmq"}


def test_connecting_loads_only_the_driver_of_the_scheme() -> None:
    packages = loaded("import rpclib; rpclib.connect('fake://')")
    assert {name for name in packages if name in ("rpclib_fake", "rpclib_amqp", "rpclib_zmq")} == {"rpclib_fake"}
    assert not packages & {"pika", "zmq", "pytest", "click", "rich"}


def test_running_it_needs_no_extra() -> None:
    needed = [text for text in requires("rpclib-messaging") or () if "extra" not in text]
    names = {re.match(r"[\w-]+", text)[0] for text in needed}  # type: ignore[index]
    assert names == {"msgpack", "stevedore", "pydantic", "pydantic-settings"}
