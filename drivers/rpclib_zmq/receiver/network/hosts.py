"""Other machines: sockets, links and discovery of a receiver that is configured for them."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

import zmq

from rpclib.errors import ConfigError
from rpclib_zmq import matchmakers
from rpclib_zmq.matchmakers import Discovery
from rpclib_zmq.options import NetworkOptions
from rpclib_zmq.receiver.network.keys import Keys
from rpclib_zmq.receiver.network.mesh import Mesh
from rpclib_zmq.receiver.network.network import Network
from rpclib_zmq.receiver.network.peers import Peers
from rpclib_zmq.receiver.network.sockets import receive
from rpclib_zmq.receiver.router import Router

log = logging.getLogger("rpclib_zmq")

_BATCH = 256


class Hosts:
    """Sockets, links and discovery. Raises ConfigError for unusable keys or matchmakers."""

    def __init__(
        self, router: Router, peers: Peers, context: zmq.Context[zmq.Socket[bytes]], options: NetworkOptions
    ) -> None:
        self._options = options
        self._keys = None
        if options.secret is not None and options.known_hosts is not None:
            self._keys = Keys(options.secret, options.known_hosts)
        self._matchmaker = matchmakers.load(options.matchmaker) if options.matchmaker else None
        self._network = Network(context, self._keys)
        self._discovery: Discovery | None = None
        self._discovered: frozenset[str] = frozenset()
        self.mesh = Mesh(router, peers, self._network)

    def start(self, handle: Callable[[Any, Callable[[], None]], None]) -> None:
        """Listen and connect. ``handle(socket, handler)`` registers the handler of a readable socket."""
        network, listen = self._network, self._options.listen
        handle(network.zap, network.authenticate)
        handle(network.monitor, self._events)
        handle(network.outbound, lambda: self._receive(network.outbound))
        if listen is not None:
            network.listen(listen)
            handle(network.inbound, lambda: self._receive(network.inbound))
        for address in self._options.peers:
            network.dial(address)
        if self._matchmaker is not None:
            self._discovery = Discovery(self._matchmaker, None if listen is None else advertised(listen))

    def tried(self) -> bool:
        """Whether the first attempt to reach each peer is over."""
        states = (dial.state for dial in self._network.dials.values())
        return not any(state in ("connecting", "connected") for state in states)

    def denied(self) -> list[str]:
        """Addresses whose keys do not match."""
        return [dial.address for dial in self._network.dials.values() if dial.state == "denied"]

    def flush(self) -> None:
        self.mesh.flush()

    def tick(self, now: float) -> None:
        if self._discovery is not None and self._discovery.hosts != self._discovered:
            before, self._discovered = self._discovered, self._discovery.hosts
            for address in self._discovered - self._network.dials.keys():
                self._network.dial(address)
            for address in before - self._discovered - set(self._options.peers):
                self.mesh.forget(address)
        self.mesh.tick(now)

    def reload(self) -> None:
        """Read the known hosts again. Existing links stay."""
        if self._keys is not None:
            try:
                self._keys.reload()
            except ConfigError as error:
                log.error("%s", error)
            else:
                log.info("read the known hosts again")

    def close(self) -> None:
        if self._discovery is not None:
            self._discovery.close()

    def _events(self) -> None:
        for dial, usable in self._network.events():
            self.mesh.connection(dial, usable)

    def _receive(self, source: zmq.Socket[bytes]) -> None:
        inbound, now = source is self._network.inbound, monotonic()
        try:
            for _ in range(_BATCH):
                if (message := receive(source)) is not None:
                    self.mesh.receive(inbound, *message, now)
        except zmq.Again:
            return


def advertised(listen: str) -> str:
    """The address for other machines. Contains the host name if the receiver listens on all interfaces."""
    host, _, port = listen.rpartition(":")
    return f"{socket.gethostname() if host in ('0.0.0.0', '[::]', '*') else host}:{port}"
