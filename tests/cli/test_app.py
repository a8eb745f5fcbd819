"""The other commands, and what holds for all of them."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rpclib.cli.app import app
from rpclib.cli.demo import demo as demos
from rpclib.cli.drivers import WORDS, promises
from rpclib.config.settings import Settings
from rpclib.driver import Capability

from .conftest import Start

MAIN = [sys.executable, "-c", "from rpclib.cli import main; main()"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def drivers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drivers ``across`` and ``away`` in this process too, and one whose SDK is missing."""
    site = place.parent / "site"
    (site / "lame.py").write_text("import nosuchsdk\n")
    with (site / "across-1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write("lame = lame:Driver\n")
    with (site / "across-1.0.dist-info" / "METADATA").open("a") as file:
        file.write("Provides-Extra: lame\nRequires-Dist: nosuchsdk; extra == 'lame'\n")
    monkeypatch.syspath_prepend(str(site))


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys; sys.argv = ['rpclib', '--help']\ntry:\n {MAIN[-1]}\nfinally: print(sorted(sys.modules))"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # it imports too
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=plain)
    loaded = set(re.findall(r"'(\w+)'", done.stdout))
    assert "click" in loaded
    assert not loaded & {"pydantic", "pydantic_settings", "rich", "stevedore", "multiprocessing"}


@pytest.mark.parametrize("module", ["click", "rich"])
def test_without_the_extra_it_gives_the_pip_command(module: str, tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, sys\n"
        f"find = u.find_spec\nu.find_spec = lambda name, *a: None if name == {module!r} else find(name, *a)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + MAIN[-1]], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"error: the rpclib command needs {module}: pip install 'rpclib-messaging[cli]'\n"


@pytest.mark.usefixtures("drivers")
def test_drivers_tells_what_each_does_or_lacks() -> None:
    text = run("drivers").stdout
    assert "fake://  rpclib-messaging 0.1.0, rpclib_fake:FakeDriver\n" in text
    assert '  ! the lame driver needs the Python module "nosuchsdk"' in text
    assert "pip install 'across[lame]'" in text
    rows = {row["scheme"]: row for row in json.loads(run("drivers", "--json").stdout)}
    assert "cross-process" in rows["across"]["capabilities"]
    assert "cross-process" not in rows["fake"]["capabilities"]
    assert rows["fake"]["problem"] is None
    assert rows["lame"]["capabilities"] is None
    assert "nosuchsdk" in rows["lame"]["problem"]


def test_every_capability_has_words_for_its_presence_and_its_absence() -> None:
    assert set(WORDS) == set(Capability)
    assert [words for kept, words in promises([Capability.ORDERED]) if kept] == [WORDS[Capability.ORDERED][0]]
    assert len(list(promises([]))) == len(Capability)


@pytest.mark.usefixtures("place")
def test_config_show_tells_values_and_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPCLIB_PASSWORD", "hunter2")
    Path("rpclib.toml").write_text('url = "fake://u@h?grace=2"\nworkers = 3\n')
    result = run("config", "show")
    assert result.exit_code == 0
    assert re.search(r"^workers +3 +workers in rpclib.toml$", result.stdout, re.MULTILINE)
    assert re.search(r"^password +\*\*\* +RPCLIB_PASSWORD$", result.stdout, re.MULTILINE)
    assert "hunter2" not in result.output
    rows = {row["name"]: row for row in json.loads(run("config", "show", "--json").stdout)}
    assert rows["grace"] == {"name": "grace", "value": 2.0, "source": "grace in the url in rpclib.toml"}


@pytest.mark.usefixtures("drivers")
def test_config_check_looks_at_the_tables_of_other_drivers_too() -> None:
    Path("rpclib.toml").write_text('url = "fake://"\n[across]\n')
    result = run("config", "check")
    assert (result.exit_code, result.stdout) == (0, "the configuration is complete: fake://\n")
    Path("rpclib.toml").write_text('url = "fake://"\n[across]\nspeed = 1\n')
    result = run("config", "check")
    assert result.exit_code == 2
    assert result.stderr == "error: speed in [across] of rpclib.toml: unknown; known: none\n"
    result = run("config", "check", "--json")
    assert json.loads(result.stdout)["error"]["code"] == "CONFIG"


@pytest.mark.usefixtures("drivers")
def test_config_sample_is_a_file_that_config_check_accepts() -> None:
    result = run("config", "sample")
    assert result.exit_code == 0
    assert {"across", "away", "fake"} <= tomllib.loads(result.stdout).keys()
    for name in Settings.model_fields:
        assert f"\n#{name} = " in result.stdout
    assert "# [lame] the lame driver needs" in result.stdout
    Path("rpclib.toml").write_text(result.stdout)
    assert run("config", "check", "-u", "fake://").exit_code == 0


@pytest.mark.usefixtures("place")
def test_the_demo_shows_everything_and_ends_well() -> None:
    result = run("demo")
    assert result.exit_code == 0, result.output
    for step in demos.STEPS:
        assert f"   > {step}\n" in result.stdout
    for error in ("RemoteError", "NoSuchMethod", "CallTimeout", "NoServer"):
        assert f"   < {error}: " in result.stdout
    assert result.stdout.count(" refreshed what it knows") == 3
    assert "\x1b" not in result.stdout


@pytest.mark.usefixtures("place")
def test_a_demo_that_goes_otherwise_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demos, "_PATIENCE", 0.05)
    wrong = [
        demos.Step("raises", "compute", "bot"),
        demos.Step("does not raise", "network", "allocate", {"instance_id": "i"}, raises=(ZeroDivisionError,)),  # type: ignore[arg-type]
        demos.Step("has no effect", "network", "allocate", {"instance_id": "i"}, kind="cast", effects=1),
    ]
    for step in wrong:
        monkeypatch.setattr(demos, "STEPS", (step,))
        assert run("demo").exit_code == 1


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_and_can_be_refused(environment: dict[str, str], coloured: bool) -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", **environment}
    env = {name: value for name, value in env.items() if name not in {"NO_COLOR"} - environment.keys()}
    process = subprocess.Popen([*MAIN, "drivers"], stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    output = b""
    while chunk := _read(ours):
        output += chunk
    os.close(ours)
    assert process.wait(60) == 0
    assert b"fake://" in output
    assert (b"\x1b[3" in output) is coloured


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


def test_version(start: Start) -> None:
    process = start("--version")
    assert process.finish() == 0
    assert re.fullmatch(r"rpclib, version \d+\.\d+\.\d+\n", process.output)
