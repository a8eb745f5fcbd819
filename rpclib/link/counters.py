"""What a transport counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """Events that were not a plain success, since the transport was opened. Read them; do not write."""

    undeliverable: int = 0
    """Casts that reached nobody."""
    bad_envelopes: int = 0
    """Received bodies that were dropped because they do not parse."""
    expired: int = 0
    """Requests dropped because their caller had stopped waiting."""
    redelivered: int = 0
    """Requests not executed because they may have run before."""
    failed: int = 0
    """Requests whose endpoint raised, or that were refused."""
    unanswered: int = 0
    """Replies that could not be sent."""
    reconnects: int = 0
    """Sessions opened after the first."""
