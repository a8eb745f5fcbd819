"""Open the connections of a session, or raise an error that an operator can act on."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Protocol

import pika.exceptions

from rpclib.errors import AccessDenied, TransportError, Unreachable
from rpclib.url import TransportURL
from rpclib_amqp.channel import Channel, ChannelClosed, ChannelObserver
from rpclib_amqp.connection import Connection, ConnectionObserver
from rpclib_amqp.options import AmqpOptions, parameters, tls_context

_DENIED = (403, 530)  # ACCESS_REFUSED: credentials. NOT_ALLOWED: the vhost.


class SessionObserver(ConnectionObserver, ChannelObserver, Protocol):
    """Gets the events of both connections, and the end of the channel to publish on."""


async def connect(
    url: TransportURL, options: AmqpOptions, observer: SessionObserver
) -> tuple[Connection, Connection, Channel]:
    """Open the connection to publish with, the connection to consume with, and a channel of the first.

    Both connections are to the one host of ``url``; everything is done within ``options.handshake_timeout``.
    Raises Unreachable if a further attempt may succeed, else AccessDenied or ConfigError.
    """
    tls = tls_context(url, options)
    opened: list[Connection] = []
    try:
        async with asyncio.timeout(options.handshake_timeout):
            opened.append(await Connection.open(parameters(url, options, "publishing"), tls, observer))
            opened.append(await Connection.open(parameters(url, options, "consuming"), tls, observer))
            return opened[0], opened[1], await opened[0].open_channel(observer)
    except BaseException as error:
        for connection in opened:
            await connection.abort()
        if isinstance(error, TimeoutError):
            raise Unreachable(f"no answer within {options.handshake_timeout:g} s") from None
        if isinstance(error, Exception):
            raise _explained(error) from error
        raise


def _explained(error: Exception) -> TransportError:
    if isinstance(error, pika.exceptions.ConnectionClosedByBroker):
        text = str(error.reply_text)
        return AccessDenied(text) if error.reply_code in _DENIED else Unreachable(text)
    if isinstance(error, pika.exceptions.AuthenticationError):
        return AccessDenied(f"the broker does not offer the mechanism {error.args[0]}")
    if isinstance(error, socket.gaierror):
        return Unreachable(f"the host name cannot be resolved: {error.strerror}")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unreachable(f"the certificate is not trusted: {error.verify_message}; see the option tls_ca")
    if isinstance(error, ssl.SSLError):
        return Unreachable(f"TLS failed: {error.reason or error}; is this the broker's TLS port?")
    if isinstance(error, OSError | ChannelClosed):
        return Unreachable(str(getattr(error, "strerror", None) or error))
    return Unreachable(f"no AMQP 0-9-1 broker, or one that expects amqps://: {error}")
