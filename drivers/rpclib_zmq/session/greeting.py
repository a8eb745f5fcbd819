"""The greeting of a session, and the answer of the receiver."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, NamedTuple

from rpclib.errors import AccessDenied, Unreachable
from rpclib_zmq.options import ZmqOptions
from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import PROTOCOL, read_json
from rpclib_zmq.rundir import RunDir


def hello() -> bytes:
    """The payload of a HELLO."""
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    return json.dumps({"protocol": PROTOCOL, "pid": os.getpid(), "program": program or "python"}).encode()


class Leaving(Exception):
    """The receiver left before the session began: start another."""


def answer(data: bytes, payload: bytes) -> dict[str, Any]:
    """The payload of the WELCOME that answers a HELLO. Raises Leaving when the receiver is leaving."""
    head = header.decode(data)
    if head is not None and head.kind == header.LEAVING:
        raise Leaving
    return read_json(payload)


class Welcome(NamedTuple):
    """What the receiver grants a session."""

    window: int
    window_bytes: int
    max_body: int
    inbox_prefix: str
    """Prefix of the keys of the session's inboxes."""


def accept(answer: dict[str, Any], run: RunDir, options: ZmqOptions) -> Welcome:
    """Check the payload of a WELCOME.

    Raises Unreachable for a receiver of another protocol or one that listens elsewhere than ``options`` say,
    AccessDenied when a peer in ``options`` refuses it.
    """
    pid, protocol = answer.get("pid"), answer.get("protocol")
    if protocol != PROTOCOL:
        raise Unreachable(
            f"the receiver (pid {pid}, rpclib {answer.get('version')}) in {run.path} speaks protocol {protocol}, "
            f'this rpclib {PROTOCOL}: stop it with "rpclib-zmq-receiver stop" or kill {pid}'
        )
    if options.listen is not None and answer["listen"] != options.listen:
        raise Unreachable(
            f"the receiver (pid {pid}) in {run.path} listens on {answer['listen'] or 'no port'}, not on "
            f"{options.listen}: stop it, or take listen out of the URL"
        )
    if denied := set(options.peers) & set(answer["denied"]):
        raise AccessDenied(f"no link from {run.path} to {', '.join(sorted(denied))}: the keys do not match")
    prefix = header.inbox_prefix(answer["node"], answer["session"])[1:].decode()
    return Welcome(answer["window"], answer["window_bytes"], answer["max_body"], prefix)
