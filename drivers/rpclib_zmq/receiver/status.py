"""The status of a receiver, for operators."""

from __future__ import annotations

from typing import Any

from rpclib_zmq.protocol.header import INBOX
from rpclib_zmq.receiver.router import Router


def status_of(router: Router) -> dict[str, Any]:
    """Sessions, addresses, waiting messages and counters, as JSON. The keys are public: scripts read them."""
    return {
        "sessions": [
            {
                "number": session.number,
                "pid": session.pid,
                "program": session.program,
                "stalled": session.stalled,
                "subscriptions": len(session.subscriptions),
                "waiting": session.waiting,
                "unanswered": len(session.unanswered),
            }
            for session in router.sessions.values()
        ],
        "places": {
            destination.name.decode(): {
                "takers": sum(consumer.count for consumer in destination.consumers),
                "waiting": sum(len(queue) for queue in destination.queues()),
            }
            for destination in router.destinations.values()
            if destination.name[0] != INBOX
        },
        "held_bytes": router.stats.held,
        "events": dict(router.stats.events),
    }
