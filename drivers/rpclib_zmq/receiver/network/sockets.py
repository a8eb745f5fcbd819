"""ROUTER sockets for links to other machines: create, receive, send."""

from __future__ import annotations

from typing import Any

import zmq

from rpclib_zmq.protocol.zmtp import Frame
from rpclib_zmq.receiver import limits

_NB = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK) | int(zmq.SNDMORE)


def router_socket(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """A ROUTER that reports unreachable peers and has no queue limit: credits bound its queues.

    The heartbeats of ZeroMQ stay off: with full queues they end healthy connections.
    """
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.BACKLOG, 1024)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
    socket.setsockopt(zmq.MAXMSGSIZE, limits.MAX_FRAME)
    return socket


def receive(socket: zmq.Socket[bytes]) -> tuple[bytes, bytes, bytes] | None:
    """The next message of a ROUTER, of two frames: peer, header, payload. Raises zmq.Again when there is none.

    None: the message had too few or too many frames, and was discarded.
    """
    recv = socket.recv
    peer = recv(_NB)
    head = recv(_NB, False)
    if not head.more:
        return None
    payload = recv(_NB, False)
    if not payload.more:
        return peer, head.bytes, payload.bytes
    while payload.more:
        payload = recv(_NB, False)
    return None


def send(socket: zmq.Socket[bytes], peer: bytes, head: bytes, payload: Frame) -> bool:
    """Send one message to one peer of a ROUTER. False: the peer is gone. A message is never sent in part."""
    emit: Any = super(zmq.Socket, socket).send  # skips a wrapper that costs more than sending
    try:
        emit(peer, _MORE)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
            return False
        raise
    emit(head, _MORE)
    emit(payload, _NB)
    return True
