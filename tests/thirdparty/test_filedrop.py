"""A driver of somebody else, in a project of its own, goes through the public path: wheel, entry point, suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = Path(__file__).parent / "rpclib-filedrop"


def run(folder: Path, *arguments: str | Path) -> str:
    """Run in ``folder``, as a user without this project's settings; return the output, fail with it."""
    foreign = ("PYTHON", "COVERAGE", "PYTEST", "RPCLIB", "TOX")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    done = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, f"{arguments[0]}: exit status {done.returncode}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a clean environment with rpclib's wheel and the stranger's project in it."""
    folder = tmp_path_factory.mktemp("stranger")
    shutil.copytree(PROJECT, folder / "project")  # setuptools writes into what it builds
    run(folder, sys.executable, "-m", "venv", "venv")
    install: list[str | Path] = [
        folder / "venv/bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    run(folder, *install, "--constraint", ROOT / "constraints.txt", f"{wheel}[conformance]", "./project")
    return folder / "venv" / "bin"


@pytest.fixture
def spool() -> Iterator[str]:
    """A directory for the messages; in memory where the system has such, for it is not the disk that is tested."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_third_party_driver_passes_the_suite(programs: Path, spool: str, tmp_path: Path) -> None:
    suite = ["-p", "rpclib.conformance.plugin", "--pyargs", "rpclib.conformance"]
    output = run(tmp_path, programs / "pytest", *suite, "--rpclib-url", f"filedrop://{spool}/messages")
    assert " passed" in output, output
