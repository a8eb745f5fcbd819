"""Memory for long messages."""

from __future__ import annotations

import functools
from typing import Final

LONG: Final = 128 * 1024
"""Bytes of a message from which its memory is a matter of its own: glibc's M_MMAP_THRESHOLD."""
_KEPT: Final = 16 * 1024 * 1024


@functools.cache
def keep_freed() -> None:
    """Have this process keep up to 16 MiB of what it frees, for the next long message. To be called with the first.

    glibc gives freed memory back as soon as twice the longest piece that was ever mapped and freed is free. Getting
    it anew for every message, page by page, takes longer than everything else that happens to the message. With
    another C library this does nothing.
    """
    bytearray(_KEPT // 2)
