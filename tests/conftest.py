"""Fixtures of the whole test tree."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.rabbit import amqp_url as amqp_url
from tests.support.rabbit import exchange as exchange
from tests.support.rabbit import rabbit as rabbit

ROOT = Path(__file__).parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutines, each in a loop of its own that is empty afterwards and had nothing to complain of."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    complaints: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
        await pyfuncitem.obj(**arguments)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"the test left tasks behind: {left}"

    asyncio.run(run())
    assert not complaints, f"the loop had to report: {complaints}"
    return True


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel under test: the one tox built and installed, elsewhere one built for this run."""
    if built := os.environ.get("TOX_PACKAGE"):
        return Path(built.split(os.pathsep)[0])
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=120)
    return next(folder.glob("*.whl"))


@pytest.fixture
def zmq_url() -> Iterator[str]:
    """A run directory with a receiver of its own, once somebody connects."""
    with tempfile.TemporaryDirectory(prefix="rpclib-") as folder:
        yield f"zmq://{folder}"
        stop = [sys.executable, "-m", "rpclib_zmq.receiver", "--run-dir", folder, "stop"]
        subprocess.run(stop, check=True, capture_output=True, timeout=20)
