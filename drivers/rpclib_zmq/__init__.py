"""The ZeroMQ driver: ``zmq://``. Calls between processes and machines without a broker.

Each session is one DEALER to the machine's receiver, ``rpclib-zmq-receiver``, which is started on demand.
"""

from rpclib_zmq.driver import ZmqDriver

__all__ = ["ZmqDriver"]
