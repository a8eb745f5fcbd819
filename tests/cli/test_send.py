"""``rpclib call``, ``cast`` and ``fanout``: against a server in this process, and alone in real processes."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import queue
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import rpclib
from rpclib.cli.app import app
from rpclib.cli.output import plain, printable

from .conftest import Start

URL = "fake://send?route_grace=0.05"
VALUES = {
    "datetime": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
    "date": dt.date(2026, 1, 2),
    "timedelta": dt.timedelta(minutes=1.5),
    "bytes": b"\x00\xff",
    "uuid": uuid.UUID(int=5),
    "decimal": decimal.Decimal("1.10"),
    "set": {3, 1, 2},
    "keys": {1: "one"},
    "nan": float("nan"),
    "text": "é",
}
PLAIN = {
    "datetime": "2026-01-02T03:04:05+00:00",
    "date": "2026-01-02",
    "timedelta": 90.0,
    "bytes": "AP8=",
    "uuid": "00000000-0000-0000-0000-000000000005",
    "decimal": "1.10",
    "set": [1, 2, 3],
    "keys": {"1": "one"},
    "nan": "NaN",
    "text": "é",
}


class Service:
    target = rpclib.Target(version="1.2", namespace="admin")

    def __init__(self, seen: queue.Queue[Any]) -> None:
        self._seen = seen

    @rpclib.expose
    async def echo(self, **arguments: Any) -> Any:
        return arguments

    @rpclib.expose
    async def give(self, what: str) -> Any:
        return {"text": "two\nlines", "values": VALUES, "nothing": None, "escape": "\x1b[2J"}[what]

    @rpclib.expose
    async def fail(self) -> None:
        raise LookupError("no \x1b[2J such thing")

    @rpclib.expose
    async def hang(self) -> None:
        import asyncio

        await asyncio.Event().wait()

    @rpclib.expose
    async def note(self, **arguments: Any) -> None:
        self._seen.put((arguments, dict(rpclib.current_context().metadata)))


class Plain:
    @rpclib.expose
    async def where(self) -> str:
        return "no namespace"


@pytest.fixture
def seen(place: Path) -> Iterator[queue.Queue[Any]]:
    """What reached `Service.note` of the servers ``one`` and ``two``."""
    found: queue.Queue[Any] = queue.Queue()
    with rpclib.sync.connect(URL, grace=0) as rpc:
        for name in ("one", "two"):
            rpc.server(rpclib.Target("svc", server=name), [Service(found), Plain()]).start()
        yield found


def run(*arguments: str, url: str = URL) -> Result:
    name, *rest = arguments
    return CliRunner().invoke(app, [name, "--url", url, *rest])


def call(*arguments: str, method: str = "echo") -> Result:
    return run("call", "--namespace", "admin", "svc", method, *arguments)


@pytest.mark.usefixtures("seen")
def test_arguments_are_text_or_json() -> None:
    result = call("a=1", "b:=1", 'c:=["x", null]', "d=", "e=f=g:=h", "f=two\nlines")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "a": "1",
        "b": 1,
        "c": ["x", None],
        "d": "",
        "e": "f=g:=h",
        "f": "two\nlines",
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a"], "neither key=text nor key:=json"),
        (["1a=b"], "neither key=text nor key:=json"),
        (["a:=b"], "a is not JSON"),
        (["a:=" + "[" * 20_000], "a is not JSON"),
        (["a=1", "a=2"], "a is given twice"),
        (["a:=123456789012345678901234567890"], "64 bit"),
        (["--context", "x"], "neither key=text nor key:=json"),
        (["--timeout", "soon"], "is not a valid float"),
        (["--timeout", "-1"], "greater than 0"),
        (["--version", "one"], "MAJOR.MINOR"),
        (["--exchange", "a b"], "exchange 'a b'"),
        (["--url", "fake://?unknown=1"], "unknown in the URL"),
    ],
)
@pytest.mark.usefixtures("seen")
def test_wrong_usage_is_exit_code_2(arguments: list[str], expected: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert expected in " ".join(result.stderr.split())
    assert result.stdout == ""


@pytest.mark.usefixtures("seen")
def test_the_topic_may_name_a_server_with_dots() -> None:
    with rpclib.sync.connect(URL) as rpc:
        rpc.server(rpclib.Target("svc", server="a.b"), [Plain()]).start()
        assert run("call", "svc.a.b", "where").stdout == "no namespace\n"
    assert run("call", "svc.one", "where").exit_code == 0
    assert run("call", "svc.three", "where").exit_code == 4
    assert run("call", "a b", "where").exit_code == 2


@pytest.mark.usefixtures("seen")
def test_results_are_text_or_one_line_of_json() -> None:
    assert call("what=text", method="give").stdout == "two\nlines\n"
    assert call("what=nothing", method="give").stdout == "null\n"
    values = call("what=values", method="give").stdout
    assert values.count("\n") == 1
    assert json.loads(values) == PLAIN
    assert json.loads(call("what=values", "--json", method="give").stdout) == {"result": PLAIN}
    assert json.loads(call("what=text", "--json", method="give").stdout) == {"result": "two\nlines"}


def test_every_type_that_travels_has_a_plain_form() -> None:
    assert plain(VALUES) == PLAIN
    assert plain([float("inf"), -float("inf"), (1, True)]) == ["Infinity", "-Infinity", [1, True]]


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert printable("a\x1b[2J\x07\x9b\tb\n") == "a\\x1b[2J\\x07\\x9b\tb\n"


@pytest.mark.usefixtures("seen")
def test_a_remote_error_is_exit_code_1() -> None:
    result = call(method="fail")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: builtins.LookupError: no \\x1b[2J such thing\n")
    assert "Traceback" not in result.stderr
    assert "in fail" in call("--traceback", method="fail").stderr
    assert call(method="fial").exit_code == 1
    assert call("x=1", method="fail").exit_code == 1


@pytest.mark.usefixtures("seen")
def test_an_error_is_json_too() -> None:
    result = call("--json", method="fail")
    assert result.exit_code == 1
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "error": {
            "code": "REMOTE",
            "message": "builtins.LookupError: no \x1b[2J such thing",
            "type": "builtins.LookupError",
        }
    }
    assert "in fail" in json.loads(call("--json", "--traceback", method="fail").stdout)["error"]["traceback"]
    result = run("call", "nobody", "there", "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["error"]["maybe_executed"] is False


@pytest.mark.usefixtures("seen")
def test_a_timeout_is_exit_code_3() -> None:
    result = call("--timeout", "0.05", method="hang")
    assert result.exit_code == 3
    assert "within 0.1 s" in result.stderr or "within 0.0 s" in result.stderr


@pytest.mark.usefixtures("seen")
def test_namespace_and_version_select_the_endpoint() -> None:
    assert run("call", "svc", "where").stdout == "no namespace\n"
    assert call("--version", "1.1").exit_code == 0
    assert call("--version", "1.3").exit_code == 1


def test_a_cast_reaches_one_server_and_a_fanout_all(seen: queue.Queue[Any]) -> None:
    result = run("cast", "svc", "note", "n:=1", "--namespace", "admin", "--context", "user=u", "--context", "n:=2")
    assert (result.exit_code, result.output) == (0, "")
    assert seen.get(timeout=10) == ({"n": 1}, {"user": "u", "n": 2})
    result = run("fanout", "svc", "note", "--namespace", "admin", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"result": None})
    assert [seen.get(timeout=10) for _ in range(2)] == [({}, {}), ({}, {})]
    assert seen.empty()


@pytest.mark.usefixtures("place")
def test_a_cast_to_nobody_is_exit_code_4_and_a_fanout_to_nobody_is_none() -> None:
    result = run("cast", "nobody", "there")
    assert result.exit_code == 4
    assert result.stderr.startswith("error: nobody serves nobody")
    assert run("fanout", "nobody", "there").exit_code == 0
    assert run("fanout", "nobody.one", "there").exit_code == 2


@pytest.mark.usefixtures("place")
def test_without_configuration_it_names_the_three_ways() -> None:
    result = CliRunner().invoke(app, ["call", "svc", "where"])
    assert result.exit_code == 2
    assert "RPCLIB_URL" in result.stderr
    assert "rpclib.toml" in result.stderr


def test_no_connection_is_exit_code_5(start: Start) -> None:
    process = start("call", "-u", "away://?connect_timeout=0.2", "svc", "where")
    assert process.finish() == 5
    assert "error: no connection to away://" in process.output


def test_ctrl_c_is_exit_code_130(start: Start) -> None:
    process = start("call", "-u", "away://?connect_timeout=1000", "svc", "where")
    process.until("trying")
    process.signal(signal.SIGINT)
    assert process.finish() == 130
    assert "Traceback" not in process.output


@pytest.mark.usefixtures("place")
def test_a_reader_that_goes_away_is_no_traceback() -> None:
    code = "from rpclib.cli import main; main()"
    arguments = [sys.executable, "-c", code, "config", "show", "-u", "fake://"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
