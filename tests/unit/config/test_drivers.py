"""Every way in which finding a driver can fail, with distributions made of real metadata."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rpclib.config import drivers as loader
from rpclib.driver import Driver
from rpclib.errors import DriverNotFound, DriverUnavailable

DRIVER = """
import re

from pydantic import BaseModel
from rpclib.driver import Capability, Driver

class Options(BaseModel):
    pass

class Good(Driver):
    spi_version = 0
    capabilities = frozenset({Capability.ORDERED})
    options = Options
    inbox_keys = re.compile("x")
    async def open(cls, url, options, observer): ...
    def route(self, address, *, must_arrive=False): ...
    def send(self, route, body, ttl, tag=b""): ...
    async def subscribe(self, address, *, prefetch, arrived): ...
    async def subscribers(self, address): ...
    async def close(self, *, flush=True): ...
"""

Install = Callable[..., str]
_numbers = itertools.count()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Write a distribution with one driver module to the path; returns the scheme, unique unless given."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(
        source: str = DRIVER, *, name: str = "", scheme: str = "", attr: str = "Good", metadata: str = ""
    ) -> str:
        number = next(_numbers)
        name, scheme, module = name or f"acme-{number}", scheme or f"acme{number}", f"acme_driver_{number}"
        info = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (tmp_path / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}")
        with (info / "entry_points.txt").open("a") as file:
            file.write(f"[rpclib.drivers]\n{scheme} = {module}:{attr}\n")
        return scheme

    return write


def message(scheme: str) -> str:
    with pytest.raises(DriverUnavailable) as caught:
        loader.load(scheme)
    return str(caught.value)


def test_a_good_driver_is_loaded_once(install: Install) -> None:
    scheme = install()
    driver = loader.load(scheme)
    assert issubclass(driver, Driver)
    assert loader.load(scheme) is driver


def test_an_unknown_scheme_names_what_is_installed_and_the_near_miss(install: Install) -> None:
    scheme = install()
    with pytest.raises(DriverNotFound) as caught:
        loader.load(scheme + "x")
    assert f'did you mean "{scheme}"?' in str(caught.value)
    with pytest.raises(DriverNotFound) as caught:
        loader.load("qqqqqq")
    assert "did you mean" not in str(caught.value)
    assert re.search(rf"Installed: .*\b{scheme}\b", str(caught.value))


def test_a_driver_installed_after_a_failure_is_found(install: Install) -> None:
    scheme = install() + "-new"
    with pytest.raises(DriverNotFound):
        loader.load(scheme)
    install(scheme=scheme)
    assert loader.load(scheme).__name__ == "Good"


def test_a_scheme_added_by_a_reinstallation_is_found(install: Install, tmp_path: Path) -> None:
    """The same version again, with one entry point more, within the clock steps of stevedore's disk cache."""
    from stevedore import DriverManager

    first = install(name="acme-reinstalled")
    DriverManager(loader.GROUP, first)  # fills its caches
    entry_points = tmp_path / "acme_reinstalled-1.0.dist-info" / "entry_points.txt"
    before = entry_points.stat()
    with entry_points.open("a") as file:
        file.write(f"{first}-second = acme_driver_{first.removeprefix('acme')}:Good\n")
    os.utime(entry_points, (before.st_atime, before.st_mtime))
    assert loader.load(f"{first}-second") is loader.load(first)


@pytest.mark.parametrize(
    ("metadata", "module", "wanted"),
    [
        ("Provides-Extra: fast\nRequires-Dist: nosuchsdk<2,>=1; extra == 'fast'\n", "nosuchsdk", "'{name}[fast]'"),
        ('Provides-Extra: mq\nRequires-Dist: pynosuchmq ; extra == "mq"\n', "nosuchmq.core", "'{name}[mq]'"),
        ("Requires-Dist: nosuchsdk (>=1)\n", "nosuchsdk", "nosuchsdk"),
        (
            "Provides-Extra: {scheme}\nRequires-Dist: other; extra == '{scheme}'\n",
            "nosuchsdk",
            "'{name}[{scheme}]'",
        ),
        ("", "nosuchsdk", "nosuchsdk"),
    ],
    ids=["extra", "other-name", "requirement", "extra-named-as-scheme", "nothing-known"],
)
def test_a_missing_sdk_gives_the_pip_command(install: Install, metadata: str, module: str, wanted: str) -> None:
    number = next(_numbers)
    names = {"name": f"sdkless-{number}", "scheme": f"sdkless{number}"}
    scheme = install(f"import {module}", **names, metadata=metadata.format(**names))
    text = message(scheme)
    assert text.endswith("pip install " + wanted.format(**names))
    assert f'"{module.partition(".")[0]}"' in text


@pytest.mark.parametrize(
    ("source", "attr", "expected"),
    [
        ("1 / 0", "Good", "raised ZeroDivisionError: division by zero"),
        ("raise ValueError('two\\nlines')", "Good", "raised ValueError: two lines"),
        (DRIVER, "Missing", "has no attribute 'Missing'"),
        ("from rpclib.driver import nonsense", "Good", "cannot import name 'nonsense'"),
        ("Good = 42", "Good", "42 is not a subclass of rpclib.driver.Driver"),
        ("class Good: pass", "Good", "is not a subclass of rpclib.driver.Driver"),
        (
            DRIVER.replace("    async def subscribers(self, address): ...\n", ""),
            "Good",
            "not implement subscribers",
        ),
        (DRIVER.replace("frozenset({Capability.ORDERED})", "{'ordered'}"), "Good", "not a frozenset of Capability"),
        (DRIVER.replace("options = Options", "options = dict"), "Good", "is not a pydantic model class"),
        (DRIVER.replace('re.compile("x")', '"x"'), "Good", "inbox_keys is not a compiled pattern"),
        (DRIVER.replace("    spi_version = 0\n", ""), "Good", "does not state its spi_version"),
        (DRIVER.replace("spi_version = 0", "spi_version = 7"), "Good", "install a newer rpclib or an older driver"),
        (
            DRIVER.replace("spi_version = 0", "spi_version = -1"),
            "Good",
            "install a newer driver or an older rpclib",
        ),
    ],
)
def test_a_broken_driver_says_what_is_wrong(install: Install, source: str, attr: str, expected: str) -> None:
    scheme = install(source, attr=attr)
    text = message(scheme)
    assert expected in text
    assert scheme in text
    assert "\n" not in text


def test_a_driver_whose_own_module_is_gone_is_to_be_reinstalled(install: Install, tmp_path: Path) -> None:
    scheme = install()
    (tmp_path / f"acme_driver_{scheme.removeprefix('acme')}.py").unlink()
    assert "reinstall" in message(scheme)
    assert "pip install" not in message(scheme)


def test_two_distributions_with_one_scheme_are_both_named_and_neither_is_imported(install: Install) -> None:
    scheme = install("raise SystemExit('imported')", name="acme-first")
    install("raise SystemExit('imported')", name="acme-second", scheme=scheme)
    text = message(scheme)
    assert "acme-first 1.0" in text
    assert "acme-second 1.0" in text
    assert [row.problem for row in loader.installed() if row.scheme == scheme] == [text, text]


def test_installed_tells_of_good_and_broken_drivers(install: Install) -> None:
    good, broken = install(), install("1 / 0")
    rows = {row.scheme: row for row in loader.installed()}
    assert rows[good].driver is loader.load(good)
    assert rows[good].problem is None
    assert rows[good].reference.endswith(":Good")
    assert (rows[good].distribution, rows[good].version) == (good.replace("acme", "acme-"), "1.0")
    assert rows[broken].driver is None
    assert "ZeroDivisionError" in (rows[broken].problem or "")


def test_schemes_imports_nothing(install: Install) -> None:
    assert install("raise SystemExit('imported')") in loader.schemes()


def test_check_holds_a_class_passed_by_a_program_to_the_same(install: Install) -> None:
    driver = loader.load(install())
    assert loader.check(driver) is driver
    with pytest.raises(DriverUnavailable, match="does not state its spi_version"):
        loader.check(Driver)  # type: ignore[type-abstract]
    with pytest.raises(DriverUnavailable, match="not a subclass"):
        loader.check("driver")  # type: ignore[arg-type]
