"""The options of an ``amqp://`` or ``amqps://`` URL, and the pika parameters and TLS context made from them."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from typing import Annotated, Literal
from urllib.parse import urlsplit

import pika
import pika.credentials
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FilePath

from rpclib.errors import ConfigError
from rpclib.url import TransportURL

LOG = logging.getLogger("rpclib_amqp")

PORTS = {"amqp": 5672, "amqps": 5671}


def _web_address(text: str | None) -> str | None:
    parts = urlsplit(text or "http://default")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise ValueError("should be http://host:port or https://host:port; user and password are those of the URL")
    parts.port  # noqa: B018  # raises ValueError
    return text


class AmqpOptions(BaseModel):
    """Options of the AMQP driver. TLS is chosen by the scheme: ``amqps://``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    heartbeat: int = Field(10, ge=1, le=600, description="Seconds between the heartbeats of both sides.")
    handshake_timeout: float = Field(5.0, gt=0, le=60, description="Seconds that one attempt to connect may take.")
    connection_name: str | None = Field(
        None, max_length=200, description="Shown by the broker; default: host name and process id."
    )
    auth: Literal["plain", "external"] = Field(
        "plain", description="plain: user and password. external: the client certificate says who you are."
    )
    tls_ca: FilePath | None = Field(
        None, description="PEM file of the authorities to trust; default: the system's."
    )
    tls_cert: FilePath | None = Field(None, description="PEM file of the client certificate.")
    tls_key: FilePath | None = Field(None, description="PEM file of its unencrypted private key.")
    tls_verify: bool = Field(True, description="Check the broker's certificate and host name.")
    management: Annotated[str | None, AfterValidator(_web_address)] = Field(
        None,
        description="Where the management plugin is, which lists queues; default: port 15672, with TLS 15671.",
        examples=["http://localhost:15672"],
    )


def parameters(url: TransportURL, options: AmqpOptions, role: str) -> pika.ConnectionParameters:
    """The parameters of pika's handshake. ``role`` becomes part of the connection's name."""
    credentials: pika.credentials.PlainCredentials | pika.credentials.ExternalCredentials
    if options.auth == "external":
        credentials = pika.credentials.ExternalCredentials()
    else:
        credentials = pika.credentials.PlainCredentials(
            "guest" if url.user is None else url.user, "guest" if url.password is None else url.password
        )
    name = options.connection_name or f"{socket.gethostname()}:{os.getpid()}"
    return pika.ConnectionParameters(
        host=url.hosts[0].name,
        port=url.hosts[0].port or PORTS[url.scheme],
        virtual_host=url.path or "/",
        credentials=credentials,
        heartbeat=options.heartbeat,
        client_properties={"product": "rpclib", "connection_name": f"{name} ({role})"},
    )


def check(url: TransportURL, options: AmqpOptions) -> None:
    """Check TLS options. Raises ConfigError for an option without effect, or one that needs another."""
    tls = options.tls_ca or options.tls_cert or options.tls_key or options.auth == "external"
    if tls and url.scheme != "amqps":
        raise ConfigError("tls_* options and auth=external need TLS: write amqps:// instead of amqp://")
    if bool(options.tls_cert) is not bool(options.tls_key):
        raise ConfigError("tls_cert and tls_key belong together: give both or neither")


def tls_context(url: TransportURL, options: AmqpOptions) -> ssl.SSLContext | None:
    """The TLS context of an ``amqps`` URL; None for ``amqp``. Raises ConfigError for unusable files."""
    if url.scheme != "amqps":
        return None
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
        if options.tls_cert and options.tls_key:
            # An empty password, because OpenSSL would otherwise ask for one on the terminal.
            context.load_cert_chain(options.tls_cert, options.tls_key, password="")
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"cannot use the files of tls_ca, tls_cert and tls_key: {error}") from None
    if not options.tls_verify:
        LOG.warning("the certificate of %s is not verified: tls_verify is off", url.hosts[0])
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
