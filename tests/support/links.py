"""Links and senders without a session."""

from __future__ import annotations

import asyncio
from typing import Any

from rpclib.address import Address
from rpclib.config.settings import resolve
from rpclib.link.connection import Connection
from rpclib.link.link import Link
from rpclib.link.sender import Sender
from tests.support.scripted import scripted


def unconnected(loop: Any = None) -> Link:
    """A link that was never opened, on ``loop`` (default: the running one)."""
    link = Link(Connection(resolve("x://h", driver=scripted())))
    link.bind(loop or asyncio.get_running_loop())
    return link


def sender_to(address: Address, link: Link) -> Sender:
    return Sender(link, address)
