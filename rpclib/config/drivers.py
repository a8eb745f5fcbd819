"""Finding the driver of a URL scheme among the installed distributions.

A distribution offers a driver through the entry-point group ``rpclib.drivers``, the scheme being the name.
Whatever is wrong with it is told as a ConfigError that says what to do.
"""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import inspect
import re
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint

from stevedore import DriverManager

from rpclib.driver import SPI_VERSION, Capability, Driver
from rpclib.errors import ConfigError, DriverNotFound, DriverUnavailable

GROUP = "rpclib.drivers"

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)")
_EXTRA = re.compile(r"""\bextra\s*==\s*["']([^"']+)["']""")


@dataclass(frozen=True, slots=True)
class InstalledDriver:
    """One claim to a scheme: whose, and either its driver or the problem that keeps it from being used."""

    scheme: str
    distribution: str
    version: str
    reference: str
    """Where the class is: ``module:Class``."""
    driver: type[Driver] | None = None
    problem: str | None = None


def load(scheme: str) -> type[Driver]:
    """The driver class for ``scheme``, imported and checked. Cheap when called again.

    Raises DriverNotFound, naming what is installed, when nobody claims the scheme; DriverUnavailable when the
    one who does cannot be used.
    """
    try:
        return _load(scheme)
    except ConfigError:
        raise
    except Exception as error:
        # Its own module raised it, when imported: the cause stays attached for whoever debugs the driver.
        raise DriverUnavailable(f"the {scheme} driver is broken: importing it raised {_one_line(error)}") from error


def schemes() -> list[str]:
    """The schemes that installed distributions claim. Imports no driver."""
    return sorted({claim.name for claim in _claims()})


def installed() -> list[InstalledDriver]:
    """Every claim, by scheme. Imports all drivers; what is wrong with one is its ``problem``."""
    return [_describe(claim) for claim in sorted(_claims(), key=lambda claim: (claim.name, _owner(claim)))]


def check(driver: type[Driver], what: str = "the driver") -> type[Driver]:
    """Return ``driver`` if it is a complete driver for this SPI version, else raise DriverUnavailable.

    ``what`` names it in the message.
    """
    from pydantic import BaseModel  # late: needed only where a driver, which imports it too, is at hand

    def broken(reason: str) -> DriverUnavailable:
        return DriverUnavailable(f"{what} is broken: {reason}")

    if not (inspect.isclass(driver) and issubclass(driver, Driver)):
        raise broken(f"{driver!r} is not a subclass of rpclib.driver.Driver")
    name = f"{driver.__module__}.{driver.__qualname__}"
    written_for = getattr(driver, "spi_version", None)
    if not isinstance(written_for, int):
        raise broken(f"{name} does not state its spi_version, a number; this rpclib has {SPI_VERSION}")
    if written_for != SPI_VERSION:
        newer, older = ("rpclib", "driver") if written_for > SPI_VERSION else ("driver", "rpclib")
        raise DriverUnavailable(
            f"{what} is written for driver interface {written_for}, and this rpclib has {SPI_VERSION}: "
            f"install a newer {newer} or an older {older}"
        )
    if missing := sorted(getattr(driver, "__abstractmethods__", ())):
        raise broken(f"{name} does not implement {', '.join(missing)}")
    capabilities = getattr(driver, "capabilities", None)
    if not isinstance(capabilities, frozenset) or not all(isinstance(one, Capability) for one in capabilities):
        raise broken(f"{name}.capabilities is not a frozenset of Capability")
    options = getattr(driver, "options", None)
    if not (inspect.isclass(options) and issubclass(options, BaseModel)):
        raise broken(f"{name}.options is not a pydantic model class")
    if not isinstance(getattr(driver, "inbox_keys", None), re.Pattern):
        raise broken(f"{name}.inbox_keys is not a compiled pattern")
    return driver


def pip_command(dist: Distribution | None, feature: str, module: str) -> str:
    """How to install ``module`` for a feature of ``dist``: by the extra that brings it, else by its own name."""
    if dist is None:
        return f"pip install {module}"
    for requirement in dist.requires or ():
        name, _, marker = requirement.partition(";")
        match = _REQUIREMENT.match(name)
        if match and _provides(match[1], module):
            extra = _EXTRA.search(marker)
            return f"pip install '{dist.name}[{extra[1]}]'" if extra else f"pip install {match[1]}"
    if feature in (dist.metadata.get_all("Provides-Extra") or ()):
        return f"pip install '{dist.name}[{feature}]'"
    return f"pip install {module}"


@functools.cache
def _load(scheme: str) -> type[Driver]:
    claims = [claim for claim in _claims() if claim.name == scheme]
    if not claims:
        raise _not_found(scheme)
    if len(claims) > 1:
        owners = " and ".join(f"{_owner(claim)} ({claim.value})" for claim in claims)
        raise DriverUnavailable(f'the scheme "{scheme}" is claimed by {owners}: uninstall all but one')
    try:
        found = _FreshDriverManager(GROUP, scheme).driver
    except ModuleNotFoundError as error:
        raise _missing(claims[0], error) from error
    return check(found, f"the {scheme} driver of {_owner(claims[0])}")  # type: ignore[arg-type]


class _FreshDriverManager(DriverManager):  # type: ignore[type-arg]  # older versions are not generic
    """Reads the installed metadata itself.

    stevedore's disk cache compares modification times in steps of about two minutes, so that it overlooks a
    driver added to a distribution that was just reinstalled; and it forgets which distribution claims what.
    """

    def list_entry_points(self) -> list[EntryPoint]:
        return _claims()


def _claims() -> list[EntryPoint]:
    return list(importlib.metadata.entry_points(group=GROUP))


def _describe(claim: EntryPoint) -> InstalledDriver:
    dist = claim.dist
    row = functools.partial(
        InstalledDriver, claim.name, dist.name if dist else "?", dist.version if dist else "?", claim.value
    )
    try:
        return row(load(claim.name))
    except DriverUnavailable as error:
        return row(None, str(error))


def _owner(claim: EntryPoint) -> str:
    return f"{claim.dist.name} {claim.dist.version}" if claim.dist else "an unnamed distribution"


def _not_found(scheme: str) -> DriverNotFound:
    known = schemes()
    near = difflib.get_close_matches(scheme, known, n=1)
    hint = f': did you mean "{near[0]}"?' if near else "."
    return DriverNotFound(
        f'no installed driver claims the scheme "{scheme}"{hint} Installed: {", ".join(known) or "none"}'
    )


def _missing(claim: EntryPoint, error: ModuleNotFoundError) -> DriverUnavailable:
    module = (error.name or "").partition(".")[0]
    if module == claim.module.partition(".")[0] or not module:
        return DriverUnavailable(
            f"the {claim.name} driver of {_owner(claim)} is broken: {_one_line(error)}; reinstall that distribution"
        )
    return DriverUnavailable(
        f'the {claim.name} driver needs the Python module "{error.name}", which is not installed: '
        f"{pip_command(claim.dist, claim.name, module)}"
    )


def _provides(distribution: str, module: str) -> bool:
    """A guess, for what is not installed cannot be asked: pyzmq brings zmq, PyYAML brings yaml."""
    return _plain(module) in _plain(distribution)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]", "", name).lower()


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
