"""How much the receiver holds, for whom and how long."""

from typing import Final

MAX_BODY: Final = 16 * 1024 * 1024
MAX_FRAME: Final = MAX_BODY + 4096

WINDOW: Final = 1000
"""Messages of one session to one address that may wait in the receiver."""
WINDOW_BYTES: Final = 4 * 1024 * 1024
"""Their bytes; one message more may start while there is a byte left."""
REPORTED: Final = WINDOW // 10
"""Messages of a lane, or of all, that leave the queues before their session is told without waiting for a tick."""
REPORTED_BYTES: Final = WINDOW_BYTES // 10
SESSION: Final = 8 * WINDOW
"""Messages of one session that may wait in all; no driver sends as many."""
HELD_BYTES: Final = 256 * 1024 * 1024
"""What waits for all sessions together; beyond it messages go back to their senders."""
UNTAKEN_BYTES: Final = 16 * 1024 * 1024
"""Bytes that one subscription may have been handed and not taken."""
PREFETCH: Final = 1000
"""Messages that a subscription without a limit of its own may have been handed and not taken."""
BACKLOG: Final = 1000
"""Messages kept for one subscriber that has stopped responding, where each subscriber gets its own copy."""
OWED: Final = 10_000
"""Unanswered messages remembered for one worker session."""
SUBSCRIPTIONS: Final = 10_000
"""Subscriptions of one session."""

INTRODUCTION: Final = 5.0
"""Seconds for which a connection may be open without a session."""
TICK: Final = 0.5
"""Seconds between heartbeats, both ways, and between looks at what has expired."""
STALLED_AFTER: Final = 2.0
"""Seconds of silence after which a session is handed nothing more."""
DEAD_AFTER: Final = 15.0
"""Seconds of silence that end a session whose process the receiver cannot watch."""
