"""The guarantee matrix, written from the suite itself: ``python -m rpclib.conformance.matrix fake amqp zmq``.

Each test is a row: its name, what its docstring promises, and for each driver whether it declares what the test
needs. The tables of docs/reference/guarantees.md are this output.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from rpclib.config.drivers import load
from rpclib.driver import Capability, Driver

GROUPS = ("test_calls", "test_casts", "test_errors", "test_connection", "test_session", "test_gates", "test_edges")


def tests(module: ModuleType) -> list[Callable[..., Any]]:
    """The tests of one group, in the order of the file."""
    found = [item for name, item in vars(module).items() if name.startswith("test_") and inspect.isfunction(item)]
    return sorted(found, key=lambda item: item.__code__.co_firstlineno)


def needed(test: Callable[..., Any]) -> frozenset[Capability]:
    """The capabilities that a test needs."""
    marks = getattr(test, "pytestmark", ())
    return frozenset(arg for mark in marks if mark.name == "rpclib_needs" for arg in mark.args)


def render(drivers: dict[str, type[Driver]]) -> Iterator[str]:
    """The lines of the matrix, as Markdown."""
    for group in GROUPS:
        module = importlib.import_module(f"rpclib.conformance.{group}")
        yield f"### {_sentence(module)}"
        yield ""
        yield from _table(["guarantee", "promise", *drivers], _rows(tests(module), drivers))
        yield ""


def _rows(functions: Iterable[Callable[..., Any]], drivers: dict[str, type[Driver]]) -> Iterator[list[str]]:
    for function in functions:
        needs = needed(function)
        kept = ["yes" if needs <= driver.capabilities else "-" for driver in drivers.values()]
        name = function.__name__.removeprefix("test_")
        yield [f"`{name}`", _sentence(function), *kept]


def _sentence(documented: object) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())


def _table(head: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(render({scheme: load(scheme) for scheme in sys.argv[1:]})) + "\n")
