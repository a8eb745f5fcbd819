"""Client of RabbitMQ's management plugin: one HTTP request, one JSON answer. It provides what AMQP cannot."""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import json
import socket
import ssl
from dataclasses import replace
from typing import Any, cast
from urllib.parse import SplitResult, quote, urlsplit

from rpclib.errors import AccessDenied, TransportError, Unreachable
from rpclib.url import Host, TransportURL
from rpclib_amqp.options import AmqpOptions, tls_context

ANSWER_WITHIN = 10.0
"""Seconds for connecting and receiving the whole answer."""
WHERE = {"amqp": ("http", 15672), "amqps": ("https", 15671)}
"""Default scheme and port of the plugin, for each scheme of the AMQP URL."""
HELP = (
    "enable the plugin there (rabbitmq-plugins enable rabbitmq_management), "
    "or say where it is with the option management=http://host:port"
)


class Management:
    """The management plugin of the broker in ``url``, queried with the credentials of ``url``."""

    def __init__(self, url: TransportURL, options: AmqpOptions) -> None:
        self._url = url
        self._options = options
        scheme, port = WHERE[url.scheme]
        self.base = options.management or f"{scheme}://{Host(url.hosts[0].name, port)}"

    async def get(self, *path: str) -> Any:
        """Get the JSON at ``/api/`` plus the parts of ``path``. Raises a TransportError that says what to do."""
        if self._options.auth == "external":
            raise AccessDenied("listing queues needs a user and a password, which auth=external does without")
        base = urlsplit(self.base)
        target = "/".join([base.path.rstrip("/"), "api", *(quote(part, safe="") for part in path)])
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                answer = await _get(base, self._tls(base), target, self._authorization())
            return self._parsed(answer)
        except TransportError:
            raise
        except TimeoutError:
            reason: object = f"no answer within {ANSWER_WITHIN:g} s"
        except (OSError, ValueError) as error:
            reason = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or error
        except http.client.HTTPException:
            reason = "its answer is not HTTP"
        raise Unreachable(f"no list of queues from {self.base} ({reason}): {HELP}")

    @property
    def vhost(self) -> str:
        return self._url.path or "/"

    def _tls(self, base: SplitResult) -> ssl.SSLContext | None:
        # The scheme of the base URL decides; it is independent of the scheme of the AMQP URL.
        return tls_context(replace(self._url, scheme="amqps"), self._options) if base.scheme == "https" else None

    def _authorization(self) -> str:
        user = "guest" if self._url.user is None else self._url.user
        password = "guest" if self._url.password is None else self._url.password
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def _parsed(self, answer: http.client.HTTPResponse) -> Any:
        """Parse the answer. Raises AccessDenied, or ValueError for an answer that RabbitMQ would not give."""
        if answer.status == http.client.UNAUTHORIZED:
            raise AccessDenied(
                f'{self.base} refuses to list queues for the user "{self._url.user or "guest"}": '
                'it needs the tag "management" (rabbitmqctl set_user_tags)'
            )
        if answer.status != http.client.OK:
            raise ValueError(f"it answered {answer.status} {answer.reason}")
        try:
            return json.loads(answer.read())
        except ValueError:
            raise ValueError("its answer is not JSON") from None


async def _get(
    base: SplitResult, tls: ssl.SSLContext | None, target: str, authorization: str
) -> http.client.HTTPResponse:
    """Make an HTTP GET request. Only the parser of http.client is used, because its connections block."""
    port = base.port or (443 if tls else 80)
    reader, writer = await asyncio.open_connection(base.hostname, port, ssl=tls)
    try:
        writer.write(
            f"GET {target} HTTP/1.1\r\nHost: {base.netloc}\r\nAuthorization: {authorization}\r\n"
            "Accept: application/json\r\nConnection: close\r\n\r\n".encode("latin-1")
        )
        received = await reader.read()
    finally:
        writer.transport.abort()  # no TLS close_notify needed: the exchange is complete
    answer = http.client.HTTPResponse(cast(socket.socket, _Received(received)))
    answer.begin()
    return answer


class _Received:
    """Received bytes that http.client reads like a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)
