"""Memory for long messages."""

from __future__ import annotations

import functools
from typing import Final

LONG: Final = 128 * 1024
"""Bytes from which glibc maps the memory of a message separately: its M_MMAP_THRESHOLD."""
_KEPT: Final = 16 * 1024 * 1024


@functools.cache
def keep_freed() -> None:
    """Make this process keep up to 16 MiB of freed memory for the next long message. Call it with the first one.

    glibc returns freed memory to the system as soon as the free part is twice as long as the longest piece that was
    ever mapped and freed. Getting the memory back for the next message, page by page, takes longer than everything
    else that happens to the message. With another C library this function does nothing.
    """
    bytearray(_KEPT // 2)
