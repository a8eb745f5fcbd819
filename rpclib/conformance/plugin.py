"""The pytest plugin of the suite; load it with ``-p rpclib.conformance.plugin``."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from rpclib.conformance.harness import Harness
from rpclib.driver import Capability

F = TypeVar("F", bound=Callable[..., Any])

TEST_SECONDS = 30
"""No test of the suite may take longer; a call that hangs fails here."""


def needs(*capabilities: Capability) -> Callable[[F], F]:
    """Mark a test as reaching only drivers that declare ``capabilities``."""
    return pytest.mark.rpclib_needs(*capabilities)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rpclib")
    group.addoption(
        "--rpclib-url",
        action="append",
        default=[],
        metavar="URL",
        help="backend to hold to the guarantees; repeatable",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rpclib_needs(*capabilities): the capabilities a guarantee rests on")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "harness" in metafunc.fixturenames:
        urls = metafunc.config.getoption("--rpclib-url")
        if not urls:
            raise pytest.UsageError("the conformance suite needs --rpclib-url, e.g. --rpclib-url fake://")
        metafunc.parametrize("harness", urls, indirect=True, ids=[url.split("://")[0] for url in urls])


@pytest.fixture
def harness(request: pytest.FixtureRequest) -> Harness:
    """The driver under test, with an exchange of its own for this test."""
    made = Harness(request.param)
    marker = request.node.get_closest_marker("rpclib_needs")
    missing = [item.value for item in (marker.args if marker else ()) if item not in made.driver.capabilities]
    if missing:
        pytest.skip(f"{made.scheme} does not declare {', '.join(missing)}")
    return made


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the suite's coroutines, each in a loop of its own that must be empty afterwards."""
    if "harness" not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def run() -> None:
        async with asyncio.timeout(TEST_SECONDS):
            await pyfuncitem.obj(**arguments)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"the test left tasks behind: {left}"

    asyncio.run(run())
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for url in config.getoption("--rpclib-url"):
        made = Harness(url)
        declared = made.driver.capabilities
        terminalreporter.section(f"{made.scheme}: declared capabilities")
        for capability in Capability:
            terminalreporter.write_line(f"{'yes' if capability in declared else 'no ':4}{capability.value}")
