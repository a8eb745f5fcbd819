"""What an operator wants to know about a receiver."""

from __future__ import annotations

from typing import Any

from rpclib_zmq.header import INBOX
from rpclib_zmq.receiver.router import Router


def status_of(router: Router) -> dict[str, Any]:
    """Sessions, the addresses they serve, and what waits and happened, as JSON."""
    return {
        "sessions": [
            {
                "number": session.number,
                "pid": session.pid,
                "program": session.program,
                "stalled": session.stalled,
                "subscriptions": len(session.subscriptions),
                "waiting": session.waiting,
                "unanswered": len(session.debts),
            }
            for session in router.sessions.values()
        ],
        "places": {
            place.name.decode(): {
                "takers": sum(taker.count for taker in place.takers),
                "waiting": sum(len(queue) for queue in place.queues()),
            }
            for place in router.places.values()
            if place.name[0] != INBOX
        },
        "held_bytes": router.tally.held,
        "events": dict(router.tally.events),
    }
