"""How a client sends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from rpclib.address import Target, parse_version
from rpclib.errors import ConfigError, UnsupportedVersion
from rpclib.wire import serializer


@dataclass(frozen=True, slots=True)
class Options:
    """How a client sends; see `Client.prepare` for their meaning. Raises ConfigError for a bad value,
    UnsupportedVersion for a version beyond the cap."""

    timeout: float
    route_grace: float
    version: str | None = None
    version_cap: str | None = None
    namespace: str | None = None
    context: dict[str, Any] = field(default_factory=dict)
    retry: int = 0

    def __post_init__(self) -> None:
        for name in ("timeout", "route_grace"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
                raise ConfigError(f"{name} must be a number of seconds, not {value!r}")
        if self.timeout == 0:
            raise ConfigError("timeout must be more than 0 seconds")
        if isinstance(self.retry, bool) or not isinstance(self.retry, int) or self.retry < 0:
            raise ConfigError(f"retry must be the number of repetitions, not {self.retry!r}")
        Target(namespace=self.namespace, version=self.version)  # which checks both
        cap = None if self.version_cap is None else parse_version(self.version_cap)
        if self.version is not None and cap is not None:
            version = parse_version(self.version)
            if version[0] != cap[0] or version[1] > cap[1]:
                raise UnsupportedVersion(
                    f"version {self.version} is beyond version_cap {self.version_cap}: some servers do not know it "
                    "yet. Ask can_send() first"
                )
        if not isinstance(self.context, dict):
            raise ConfigError(f"context must be a dict, not {self.context!r}")
        for key in self.context:
            if not isinstance(key, str):
                raise ConfigError(f"context keys are str, not {key!r}")
        serializer.check(self.context, "context")

    def changed(self, options: dict[str, Any]) -> Options:
        """These options with some of other values. Raises ConfigError for a name that is no option."""
        for name in options:
            if name not in _NAMES:
                raise ConfigError(f'a client has no option "{name}"; it has {", ".join(sorted(_NAMES))}')
        return replace(self, **options)


_NAMES = frozenset(Options.__dataclass_fields__)
