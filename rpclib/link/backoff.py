"""How long to wait before the next attempt to connect."""

from __future__ import annotations

import random

from rpclib.errors import AccessDenied, TransportError

FIRST = 0.05
CAP_REFUSED = 0.5
CAP_TIMED_OUT = 5.0
CAP_DENIED = 10.0
_SLOW = 1.0


def delay(attempt: int, error: TransportError, took: float) -> float:
    """Seconds before attempt number ``attempt`` (1 is the first repetition), after one that took ``took`` seconds.

    Full jitter (AWS's term): uniform between zero and an exponential bound, so that a thousand clients of a
    restarted broker do not come back at once. A host that refuses is asked often, one that does not answer
    seldom, one that denies access hardly ever.
    """
    if isinstance(error, AccessDenied):
        cap = CAP_DENIED
    elif took >= _SLOW:
        cap = CAP_TIMED_OUT
    else:
        cap = CAP_REFUSED
    return random.uniform(0, min(cap, FIRST * 2 ** min(attempt - 1, 16)))
