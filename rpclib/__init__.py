"""rpclib: one way to call Python services over any message backend.

The public names are those listed here, `rpclib.sync` (the same, blocking), `rpclib.testing`, and for drivers
`rpclib.driver`, `rpclib.driverkit`, `rpclib.errors`, `rpclib.url`, `rpclib.address` and `rpclib.memory`.
"""

from rpclib import sync as sync
from rpclib.address import Target
from rpclib.calling.client import Client
from rpclib.calling.returned import Undeliverable
from rpclib.context import Context, current_context
from rpclib.driver import Capability
from rpclib.errors import (
    AccessDenied,
    BadEnvelope,
    CallTimeout,
    CapabilityMissing,
    ConfigError,
    ConnectionLost,
    DriverNotFound,
    DriverUnavailable,
    ForkError,
    InvalidArguments,
    MessageTooLarge,
    NoServer,
    NoSuchMethod,
    Overloaded,
    RemoteError,
    RpcError,
    SerializationError,
    TransportClosed,
    TransportError,
    Unreachable,
    UnsupportedVersion,
    WorkerLost,
    remote_error,
)
from rpclib.link.counters import Counters
from rpclib.serving.endpoints import expose
from rpclib.serving.server import Server
from rpclib.transport import Transport, connect
from rpclib.url import TransportURL

__all__ = [
    "AccessDenied",
    "BadEnvelope",
    "CallTimeout",
    "Capability",
    "CapabilityMissing",
    "Client",
    "ConfigError",
    "ConnectionLost",
    "Context",
    "Counters",
    "DriverNotFound",
    "DriverUnavailable",
    "ForkError",
    "InvalidArguments",
    "MessageTooLarge",
    "NoServer",
    "NoSuchMethod",
    "Overloaded",
    "RemoteError",
    "RpcError",
    "SerializationError",
    "Server",
    "Target",
    "Transport",
    "TransportClosed",
    "TransportError",
    "TransportURL",
    "Undeliverable",
    "Unreachable",
    "UnsupportedVersion",
    "WorkerLost",
    "connect",
    "current_context",
    "expose",
    "remote_error",
    "sync",
]
