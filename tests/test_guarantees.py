"""docs/reference/guarantees.md says what the suite proves, no more and no less."""

from __future__ import annotations

from pathlib import Path

from rpclib.config.drivers import load
from rpclib.conformance.matrix import GROUPS, render

ROOT = Path(__file__).parents[1]


def test_the_matrix_in_the_documentation_is_the_suites() -> None:
    document = (ROOT / "docs" / "reference" / "guarantees.md").read_text("utf-8")
    matrix = "\n".join(render({scheme: load(scheme) for scheme in ("fake", "amqp", "zmq")})).strip()
    assert matrix in document, (
        "run: python -m rpclib.conformance.matrix fake amqp zmq, and put it into the document"
    )


def test_every_group_is_in_the_matrix() -> None:
    files = {path.stem for path in (ROOT / "rpclib" / "conformance").glob("test_*.py")}
    assert files == set(GROUPS)
