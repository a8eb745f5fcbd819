"""For the tests of applications: ``pytest_plugins = ["rpclib.testing"]`` in a conftest.py.

The fixtures use the in-memory driver, which carries the same bytes and keeps the same guarantees as the others,
so what passes here is not a mock's opinion. Needs pytest.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from rpclib import sync


@pytest.fixture
def rpclib_url() -> str:
    """A URL that no other test uses; everything in this process that connects to it meets there."""
    return f"fake://{uuid.uuid4().hex}"


@pytest.fixture
def rpc(rpclib_url: str) -> Iterator[sync.Transport]:
    """A connected blocking transport at `rpclib_url`, closed after the test. Its calls time out after 5 s."""
    with sync.connect(rpclib_url, timeout=5) as transport:
        yield transport
