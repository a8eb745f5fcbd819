"""The same API, blocking: ``with rpclib.sync.connect(url) as rpc: rpc.client("compute").call("boot")``.

A thin facade: each transport runs the async one on a loop in a thread of its own. Every object is thread-safe.
After a fork, the first use in the child opens a new connection there; servers stay the parent's.
"""

from rpclib.sync.client import Client
from rpclib.sync.server import Server
from rpclib.sync.transport import Transport, connect

__all__ = ["Client", "Server", "Transport", "connect"]
