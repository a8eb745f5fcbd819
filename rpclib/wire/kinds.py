"""The kinds of envelopes, and the limits that hold for all of them. Specified in docs/reference/envelope.md."""

from __future__ import annotations

from typing import Final

VERSION: Final = 1
MAX_BODY: Final = 16 * 1024 * 1024
"""Bytes of the longest envelope."""
ID_LENGTH: Final = 16

CALL: Final = 1
CAST: Final = 2
RESULT: Final = 3
ERROR: Final = 4
# 5 to 9 are reserved: ITEM, END, CANCEL, CREDIT, ACCEPTED.
ALIVE: Final = 10
