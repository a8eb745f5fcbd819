"""Options of ``zmq://`` URLs and of the receiver."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ValueError(f'"{text}" is not of the form host:port')
    return text


def _split(value: object) -> object:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


HostAndPort = Annotated[str, AfterValidator(_address)]


class NetworkOptions(BaseModel):
    """How receivers of several machines reach each other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: HostAndPort | None = Field(None, description="host:port where other receivers may connect")
    peers: Annotated[list[HostAndPort], BeforeValidator(_split)] = Field(
        [], description="host:port of other receivers, separated by commas", examples=[["host-b:9501"]]
    )
    matchmaker: str | None = Field(
        None,
        description="Who knows the other receivers: file:PATH, redis://HOST:PORT/DB, or a plugin's NAME:ARGUMENT",
    )
    secret: Path | None = Field(None, description="File with this receiver's secret key")
    known_hosts: Path | None = Field(
        None, description='File with the keys of other receivers: lines "host:port key"'
    )
    insecure: bool = Field(False, description="Allow listening beyond this machine without keys")

    @model_validator(mode="after")
    def _fails_closed(self) -> Self:
        if (self.secret is None) != (self.known_hosts is None):
            raise ValueError("secret and known_hosts belong together: give both or neither")
        if self.listen and self.secret is None and not self.insecure and not is_loopback(self.listen):
            raise ValueError(
                f"listening on {self.listen} needs secret and known_hosts (see rpclib-zmq-receiver keygen), or "
                "insecure=true, which lets anybody who reaches the port call every service"
            )
        return self

    def arguments(self) -> list[str]:
        """These options as command-line arguments of a receiver."""
        words = []
        for name, field in NetworkOptions.model_fields.items():
            value = getattr(self, name)
            if value is True:
                words.append("--" + name)
            elif value != field.default:
                words += ["--" + name.replace("_", "-"), ",".join(value) if isinstance(value, list) else str(value)]
        return words


class ZmqOptions(NetworkOptions):
    """Options of a program: its receiver, and how to start it."""

    start: bool = Field(
        True, description="Start a receiver when none runs; false where the operating system's supervisor does"
    )
    idle_exit: float = Field(
        30.0, gt=0, description="Seconds without a session after which a receiver started here leaves"
    )


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches ``host:port``."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
