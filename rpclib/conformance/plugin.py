"""The pytest plugin of the suite; load it with ``-p rpclib.conformance.plugin``."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from rpclib.conformance.harness import Harness
from rpclib.driver import Capability, Driver

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
    made.needed = frozenset(marker.args if marker else ())
    missing = [item.value for item in Capability if item in made.needed - made.driver.capabilities]
    if missing:
        pytest.skip(f"{made.scheme} does not declare {', '.join(missing)}")
    return made


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the suite's coroutines, each in a loop of its own that is empty afterwards and had nothing to report."""
    if "harness" not in pyfuncitem.fixturenames or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    complaints: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
        async with asyncio.timeout(TEST_SECONDS):
            await pyfuncitem.obj(**arguments)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"the test left tasks behind: {left}"
        gc.collect()  # tasks whose exceptions nobody retrieved complain when they go

    made = pyfuncitem.funcargs["harness"]
    assert isinstance(made, Harness)
    try:
        asyncio.run(run())
    except Exception as error:
        for lost in [lost for recorder in made.recorders for lost in recorder.losses]:
            error.add_note(f"a session was lost: {type(lost).__name__}: {lost}")
        for complaint in complaints:
            error.add_note(f"the loop had to report: {complaint}")
        raise
    assert not complaints, f"the loop had to report: {complaints}"
    late = [what for recorder in made.recorders for what in recorder.late]
    assert not late, f"told after the loss of the session: {', '.join(late)}"
    return True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A driver that blocks the loop, or swallows its cancellation, ends its test and not the run."""
    if config.pluginmanager.hasplugin("timeout"):
        for item in items:
            if "harness" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(2 * TEST_SECONDS))


def pytest_report_header(config: pytest.Config) -> list[str]:
    """What is tested, and from where: an installed release is easily taken for the tree."""
    return [_described(Harness(url).driver, url) for url in config.getoption("--rpclib-url")]


def _described(driver: type[Driver], url: str) -> str:
    package = driver.__module__.partition(".")[0]
    owners = importlib.metadata.packages_distributions().get(package, [])
    versions = ", ".join(f"{owner} {importlib.metadata.version(owner)}" for owner in dict.fromkeys(owners))
    where = inspect.getsourcefile(driver)
    return (
        f"rpclib: {url.partition('://')[0]}:// is {driver.__qualname__} of {where} ({versions or 'not installed'})"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for url in config.getoption("--rpclib-url"):
        made = Harness(url)
        declared = made.driver.capabilities
        terminalreporter.section(f"{made.scheme}: declared capabilities")
        for capability in Capability:
            terminalreporter.write_line(f"{'yes' if capability in declared else 'no ':4}{capability.value}")
