"""Limits of the receiver: messages, bytes and seconds."""

from typing import Final

MAX_BODY: Final = 16 * 1024 * 1024
MAX_FRAME: Final = MAX_BODY + 4096

WINDOW: Final = 1000
"""Messages of one session to one address that may wait in the receiver."""
WINDOW_BYTES: Final = 4 * 1024 * 1024
"""Bytes of one session to one address that may wait. The message that exceeds the limit is still accepted."""
REPORTED: Final = WINDOW // 10
"""Messages of one lane, or of all lanes, after which a report is sent without waiting for a tick."""
REPORTED_BYTES: Final = WINDOW_BYTES // 10
SESSION: Final = 8 * WINDOW
"""Messages of one session that may wait in total. A driver never reaches this limit."""
HELD_BYTES: Final = 256 * 1024 * 1024
"""Bytes that may wait for all sessions together. Beyond it, messages go back to their senders."""
UNTAKEN_BYTES: Final = 16 * 1024 * 1024
"""Bytes delivered to one subscription and not taken, at most."""
PREFETCH: Final = 1000
"""Messages delivered to one subscription and not taken, at most. The default prefetch."""
BACKLOG: Final = 1000
"""Fanout messages kept for one subscriber that has stopped responding."""
UNANSWERED: Final = 10_000
"""Unanswered messages remembered for one session or peer."""
SUBSCRIPTIONS: Final = 10_000
"""Subscriptions of one session."""

INTRODUCTION: Final = 5.0
"""Seconds for which a connection may be open without a session."""
TICK: Final = 0.5
"""Seconds between heartbeats, and between checks for expired messages."""
STALLED_AFTER: Final = 2.0
"""Seconds of silence after which nothing more is delivered to a session."""
DEAD_AFTER: Final = 15.0
"""Seconds of silence that end a session whose process the receiver cannot watch."""
