"""A look inside a transport, for tests that no public seam serves."""

from __future__ import annotations

from dataclasses import dataclass

import rpclib
from rpclib.calling.calls import Calls
from rpclib.link.connection import Connection
from rpclib.link.link import Link
from rpclib.serving.replies import Replies
from rpclib.serving.server import Server


@dataclass(frozen=True)
class Inside:
    """The parts of a transport, live. They may change with any release."""

    link: Link
    connection: Connection
    calls: Calls
    replies: Replies
    servers: list[Server]
    """The servers that were made and have not stopped."""


def inside(rpc: rpclib.Transport) -> Inside:
    """The parts of ``rpc``."""
    return Inside(rpc._link, rpc._connection, rpc._calls, rpc._replies, rpc._servers)
