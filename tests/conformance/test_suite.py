"""The conformance suite on the drivers that need something running, by the command that anybody uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def suite(url: str, folder: Path) -> str:
    """Run the suite from a folder of its own; return its output. Fails unless it is green."""
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "rpclib.conformance.plugin"]
    command += ["--pyargs", "rpclib.conformance", "--rpclib-url", url]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_rabbitmq(amqp_url: str, tmp_path: Path) -> None:
    assert "amqp: declared capabilities" in suite(amqp_url, tmp_path)


def test_zeromq(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    try:
        assert "zmq: declared capabilities" in suite(f"zmq://{run}", tmp_path)
    finally:
        stop = [sys.executable, "-m", "rpclib_zmq.receiver", "--run-dir", str(run), "stop"]
        subprocess.run(stop, check=False, capture_output=True, timeout=30)
