"""The AMQP driver of rpclib, for RabbitMQ: ``amqp://`` and, with TLS, ``amqps://``."""

from rpclib_amqp.driver import AmqpDriver
from rpclib_amqp.options import AmqpOptions

__all__ = ["AmqpDriver", "AmqpOptions"]
