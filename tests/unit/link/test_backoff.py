"""Back-off: within its bounds, all of them reached, whatever the attempt."""

from __future__ import annotations

import pytest

from rpclib.errors import AccessDenied, ConnectionLost, TransportError, Unreachable
from rpclib.link import backoff


@pytest.mark.parametrize(
    ("error", "took", "cap"),
    [
        (Unreachable("refused"), 0.0, 0.5),
        (ConnectionLost("reset"), 0.9, 0.5),
        (Unreachable("timed out"), 1.0, 5.0),
        (AccessDenied("no"), 0.0, 10.0),
        (AccessDenied("no"), 30.0, 10.0),
    ],
)
def test_bounds(error: TransportError, took: float, cap: float) -> None:
    for attempt in [*range(1, 12), 100, 10**6]:
        bound = min(cap, 0.05 * 2 ** min(attempt - 1, 30))
        delays = [backoff.delay(attempt, error, took) for _ in range(400)]
        assert all(0 <= delay <= bound for delay in delays)
        assert max(delays) > bound * 0.9, "the bound is lower than it says"
        assert min(delays) < bound * 0.1, "not the full jitter"
