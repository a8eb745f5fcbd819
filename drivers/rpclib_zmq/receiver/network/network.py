"""TCP sockets between receivers: authentication, outbound connections, and connection events."""

from __future__ import annotations

import itertools
import logging
from time import monotonic

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from rpclib_zmq.receiver.network.keys import Keys
from rpclib_zmq.receiver.network.sockets import router_socket

log = logging.getLogger("rpclib_zmq")

_DOMAIN = b"rpclib"
_RETRY = 5.0
"""Seconds between attempts where a peer refused. libzmq itself retries either never or eight times a second."""
_EVENTS = (
    zmq.Event.HANDSHAKE_SUCCEEDED
    | zmq.Event.DISCONNECTED
    | zmq.Event.HANDSHAKE_FAILED_AUTH
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.CONNECT_RETRIED
)


class Dial:
    """One address this receiver connects to."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.routing_id = b""
        """The routing id of the current connection."""
        self.state = "connecting"
        """One of connecting, connected, unreachable, denied; after the handshake linked, spare, refused, itself."""
        self.node: str | None = None
        self.retry = 0.0
        """When to connect again; 0: zmq reconnects by itself."""


class Network:
    """The sockets: ``outbound`` connects, ``inbound`` accepts if the receiver listens."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: Keys | None) -> None:
        self._keys = keys
        self._numbers = itertools.count(1)
        self.dials: dict[str, Dial] = {}
        self.by_routing_id: dict[bytes, Dial] = {}
        self.zap = context.socket(zmq.REP)
        self.zap.setsockopt(zmq.LINGER, 0)
        self.zap.bind("inproc://zeromq.zap.01")
        self.outbound = router_socket(context)
        self.inbound = router_socket(context)
        for socket in (self.outbound, self.inbound):
            self._prepare(socket)
        self.monitor = self.outbound.get_monitor_socket(_EVENTS)

    def _prepare(self, socket: zmq.Socket[bytes]) -> None:
        options = [(zmq.TCP_KEEPALIVE, 1), (zmq.TCP_KEEPALIVE_IDLE, 5), (zmq.TCP_KEEPALIVE_INTVL, 2)]
        options += [
            (zmq.TCP_KEEPALIVE_CNT, 3),
            (zmq.IPV6, 1),
            (zmq.RECONNECT_IVL, 100),
            (zmq.RECONNECT_IVL_MAX, 1000),
        ]
        for option, value in options:
            socket.setsockopt(option, value)
        if socket is self.inbound:
            socket.setsockopt(zmq.ZAP_DOMAIN, _DOMAIN)
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        if self._keys is not None:
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode())
            if socket is self.inbound:
                socket.setsockopt(zmq.CURVE_SERVER, 1)

    def listen(self, address: str) -> None:
        """Accept connections. Raises zmq.ZMQError when the port cannot be had."""
        host, _, port = address.rpartition(":")
        self.inbound.bind(f"tcp://{'*' if host in ('0.0.0.0', '[::]') else host}:{port}")

    def dial(self, address: str) -> None:
        """Connect to the address, and reconnect whenever the connection is lost."""
        dial = self.dials.get(address)
        if dial is None:
            dial = self.dials[address] = Dial(address)
        dial.retry = 0.0
        if self._keys is not None:
            expected = self._keys.by_address.get(address)
            if expected is None:
                self._deny(dial, "known_hosts has no key for it")
                return
            self.outbound.setsockopt(zmq.CURVE_SERVERKEY, expected.encode())
        dial.routing_id = b"dial-%d" % next(self._numbers)
        self.by_routing_id[dial.routing_id] = dial
        self.outbound.setsockopt(zmq.CONNECT_ROUTING_ID, dial.routing_id)
        self.outbound.connect(f"tcp://{address}")

    def hang_up(self, dial: Dial, retry: float) -> None:
        """Close a connection, discard its messages in flight, and connect again after ``retry`` seconds."""
        if self.by_routing_id.pop(dial.routing_id, None) is not None:
            self.outbound.disconnect(f"tcp://{dial.address}")
        dial.retry = monotonic() + retry

    def forget(self, address: str) -> None:
        """Disconnect from an address for good."""
        dial = self.dials.pop(address)
        self.hang_up(dial, 0)

    def tick(self, now: float) -> None:
        for dial in list(self.dials.values()):
            if dial.retry and now >= dial.retry:
                self.dial(dial.address)

    def events(self) -> list[tuple[Dial, bool]]:
        """Connection events: (dial, True) for an established connection, (dial, False) for a lost one."""
        happened = []
        while self.monitor.poll(0):
            event = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))
            dial = self.dials.get(event["endpoint"].decode().removeprefix("tcp://"))
            if dial is None or dial.routing_id not in self.by_routing_id:
                continue
            if event["event"] == zmq.Event.HANDSHAKE_SUCCEEDED:
                happened.append((dial, True))
                dial.state = "connected"
                continue
            failed = event["event"] not in (zmq.Event.DISCONNECTED, zmq.Event.CONNECT_RETRIED)
            if failed or (event["event"] == zmq.Event.DISCONNECTED and self._keys and dial.state != "connected"):
                self._deny(dial, "it refuses our key, or has another key than known_hosts says")
            elif event["event"] == zmq.Event.CONNECT_RETRIED:
                dial.state = "unreachable"
                continue
            else:
                dial.state = "connecting"
            happened.append((dial, False))
        return happened

    def _deny(self, dial: Dial, reason: str) -> None:
        if dial.state != "denied":
            log.error("no link to %s: %s", dial.address, reason)
        dial.state = "denied"
        self.hang_up(dial, _RETRY)

    def authenticate(self) -> None:
        """Answer a ZAP request: allow or deny a connection. Anything unexpected is denied."""
        try:
            version, request, _, _, _, mechanism, *credentials = self.zap.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        allowed = False
        if self._keys is None:
            allowed = mechanism == b"NULL"
        elif mechanism == b"CURVE" and len(credentials) == 1 and len(credentials[0]) == 32:
            allowed = z85.encode(credentials[0]).decode() in self._keys.accepted
        status = [b"200", b"OK"] if allowed else [b"400", b"unknown key"]
        self.zap.send_multipart([version, request, *status, b"", b""])
