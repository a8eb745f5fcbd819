"""Queue tools on a private RabbitMQ with its management plugin."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import rpclib
from rpclib.address import Address, Kind
from rpclib.cli.app import app
from rpclib.config.settings import resolve
from rpclib.driver import Admin
from rpclib.errors import ConnectionLost, NoServer
from rpclib.link.connection import Connection, ConnectionObserver
from rpclib.testing.waiting import tap
from tests.support.rabbit import PASSWORD, USER, Rabbit, free_ports, running
from tests.support.rabbit import exchange as exchange

from .conftest import PATIENCE

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("place")]


class Service:
    @rpclib.expose
    async def work(self) -> None: ...


@pytest.fixture(scope="module")
def management() -> str:
    """Where the plugin will listen."""
    return f"http://127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture(scope="module")
def managed(management: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    """A node with the plugin, which the user may ask."""
    config = tmp_path_factory.mktemp("rabbit") / "rabbitmq.conf"
    config.write_text(f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management.rpartition(':')[2]}\n")
    with running(config=config) as rabbit:
        rabbit.tool("rabbitmq-plugins", "enable", "rabbitmq_management")
        rabbit.run("set_user_tags", USER, "management")
        yield rabbit


@pytest.fixture
def url(place: Path, managed: Rabbit, management: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The broker; where its plugin is stands in the environment."""
    monkeypatch.setenv("RPCLIB_AMQP_MANAGEMENT", management)
    return managed.url


@pytest.fixture
def area(url: str, exchange: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An exchange of its own that, with the broker, is the configured one."""
    monkeypatch.setenv("RPCLIB_URL", url)
    monkeypatch.setenv("RPCLIB_EXCHANGE", exchange)
    return exchange


@asynccontextmanager
async def connection(exchange: str | None = None) -> AsyncIterator[Connection]:
    opened = Connection(resolve(exchange=exchange))
    await opened.open(ConnectionObserver())
    try:
        yield opened
    finally:
        await opened.close()


async def leave(exchange: str, topic: str, server: str = "", messages: int = 0) -> None:
    """A queue that a server left behind, with messages in it."""
    async with connection() as session:
        assert session.driver is not None
        address = Address(Kind.ONE, exchange, topic, server)
        subscription = await tap(session.driver, address, prefetch=1)
        await subscription.close()
        for _ in range(messages):
            session.driver.send(session.driver.route(address), b"x", None)


async def left(exchange: str) -> dict[str, int]:
    """What waits in each queue, as the driver tells."""
    async with connection() as session:
        assert isinstance(session.driver, Admin)
        return {
            queue.name.removeprefix(f"{exchange}."): queue.messages
            for queue in await session.driver.queues(exchange)
        }


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, arguments)


def rows(result: Result) -> list[list[str]]:
    return [line.split() for line in result.stdout.splitlines()]


async def test_lists_names_messages_and_consumers_of_the_exchange(area: str) -> None:
    await leave(area, "compute", messages=3)
    await leave(area, "compute", "phantom")
    await leave(f"{area}-2", "compute", messages=1)
    async with rpclib.connect() as rpc, rpc.server(rpclib.Target("network", server="n1"), [Service()]):
        result = await run("queues")
        assert result.exit_code == 0, result.output
        assert rows(result) == [
            ["queue", "messages", "consumers"],
            [f"{area}.compute", "3", "0"],
            [f"{area}.compute.phantom", "0", "0"],
            [f"{area}.network", "0", "1"],
            [f"{area}.network.n1", "0", "1"],
        ]
    result = await run("queues", "--json", "--exchange", f"{area}-2")
    assert json.loads(result.stdout) == {"queues": [{"name": f"{area}-2.compute", "messages": 1, "consumers": 0}]}


async def test_an_exchange_that_nobody_uses_has_no_queues(area: str) -> None:
    result = await run("queues")
    assert (result.exit_code, rows(result)) == (0, [f'no queues in exchange "{area}" on {resolve().url}'.split()])
    assert "***" in result.stdout


async def test_purge_empties_what_matches_and_nothing_else(area: str) -> None:
    await leave(area, "compute", messages=2)
    await leave(area, "compute", "phantom", messages=3)
    await leave(area, "network", messages=4)
    result = await run("queues", "purge", f"{area}.compute*", "--yes")
    assert (result.exit_code, result.stdout) == (0, "purged 2 queues with 5 messages\n"), result.output
    assert await left(area) == {"compute": 0, "compute.phantom": 0, "network": 4}


async def test_delete_removes_the_queues_of_a_host(area: str) -> None:
    for topic in ("compute", "network"):
        await leave(area, topic, messages=1)
        await leave(area, topic, "phantom", messages=2)
    result = await run("queues", "delete", "*.phantom", "--yes", "--json")
    assert json.loads(result.stdout) == {
        "deleted": [
            {"name": f"{area}.compute.phantom", "messages": 2},
            {"name": f"{area}.network.phantom", "messages": 2},
        ],
        "kept": [],
        "dry_run": False,
    }
    assert await left(area) == {"compute": 1, "network": 1}


async def test_queues_of_others_are_never_touched(area: str, managed: Rabbit) -> None:
    """Of an exchange whose name begins alike; bound to ours under another name; named like ours but not bound."""
    await leave(area, "compute")
    await leave(f"{area}-2", "compute", messages=1)
    async with connection() as session:
        control = session.driver.control  # type: ignore[union-attr]
        for name in ("tap", f"{area}.tap", f"{area}.unbound"):
            await control._ask("queue_declare", name, durable=True)
        for name in ("tap", f"{area}.tap"):
            await control._ask("queue_bind", name, area, "#")
    result = await run("queues", "delete", "*", "--yes")
    assert (result.exit_code, result.stdout) == (0, "deleted 1 queue with 0 messages\n"), result.output
    names = {row["name"] for row in await managed.list("queues", "name")}
    assert {"tap", f"{area}.tap", f"{area}.unbound", f"{area}-2.compute"} <= names
    assert f"{area}.compute" not in names


async def test_a_queue_in_use_is_purged_but_not_deleted(area: str) -> None:
    await leave(area, "compute", "gone")
    async with rpclib.connect() as rpc, rpc.server(rpclib.Target("compute", server="here"), [Service()]):
        for mode in ("--dry-run", "--yes"):
            result = await run("queues", "delete", "*.compute.*", mode)
            assert result.exit_code == 1
            done = {"--dry-run": "would delete", "--yes": "deleted"}[mode]
            assert result.stdout.endswith(
                f"{done} 1 queue with 0 messages\n"
                f"kept {area}.compute.here, which has 1 consumer: stop its servers first\n"
            )
        assert (await run("queues", "purge", "*.here", "--yes")).exit_code == 0
        assert set(await left(area)) == {"compute", "compute.here"}


async def test_a_dry_run_shows_and_does_nothing(area: str) -> None:
    await leave(area, "compute", messages=2)
    result = await run("queues", "purge", "*", "--dry-run", "--yes")
    assert result.exit_code == 0
    assert rows(result)[1] == [f"{area}.compute", "2", "0"]
    assert result.stdout.endswith("\nwould purge 1 queue with 2 messages\n")
    result = await run("queues", "delete", "*", "--dry-run", "--json")
    assert json.loads(result.stdout)["dry_run"] is True
    assert await left(area) == {"compute": 2}


async def test_options_of_the_group_hold_for_its_commands(area: str) -> None:
    """An exchange that was ignored would be the wrong one emptied."""
    await leave(area, "compute", messages=1)
    await leave(f"{area}-2", "compute", messages=1)
    assert (await run("queues", "--exchange", f"{area}-2", "purge", "*", "--yes")).exit_code == 0
    assert (await left(area), await left(f"{area}-2")) == ({"compute": 1}, {"compute": 0})
    result = await run("queues", "--json", "--exchange", area, "delete", "--exchange", f"{area}-2", "*", "--yes")
    assert json.loads(result.stdout)["deleted"] == [{"name": f"{area}-2.compute", "messages": 0}]


async def test_nothing_matched_is_exit_code_4(area: str) -> None:
    await leave(area, "compute")
    result = await run("queues", "purge", "compute", "--yes")
    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr == f'error: none of the 1 queue of exchange "{area}" matches "compute"\n'
    result = await run("queues", "delete", "x", "--yes", "--json")
    assert json.loads(result.stdout)["error"]["code"] == "NO_SERVER"


async def test_a_broker_short_of_memory_can_be_relieved(area: str, managed: Rabbit) -> None:
    await leave(area, "compute", messages=2)
    await managed.alarm(True)
    try:
        assert (await run("queues", "purge", "*", "--yes")).exit_code == 0
    finally:
        await managed.alarm(False)
    assert await left(area) == {"compute": 0}


@pytest.mark.parametrize("command", [("purge", "*"), ("delete", "*"), ("delete", "*", "--json")])
async def test_without_a_terminal_nothing_is_done_unasked(area: str, command: tuple[str, ...]) -> None:
    await leave(area, "compute", messages=1)
    result = await run("queues", *command)
    assert result.exit_code == 2
    assert "say --yes to" in result.output
    assert len(result.output.splitlines()) == 1
    assert await left(area) == {"compute": 1}


@pytest.mark.parametrize(
    ("answer", "code", "after"),
    [("y\n", 0, {}), ("n\n", 1, {"compute": 1}), ("\n", 1, {"compute": 1}), ("Ctrl-C", 130, {"compute": 1})],
)
async def test_on_a_terminal_it_asks(area: str, answer: str, code: int, after: dict[str, int]) -> None:
    await leave(area, "compute", messages=1)
    ended, shown = await asyncio.to_thread(converse, ["queues", "delete", "*.compute"], answer)
    assert (ended, await left(area)) == (code, after), shown
    assert "delete 1 queue with 1 message? [y/N]" in shown
    assert "Traceback" not in shown


def converse(arguments: list[str], answer: str) -> tuple[int, str]:
    """Answer the question of a command on a terminal; its exit code and what it showed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from rpclib.cli import main; main()", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = ""
    try:
        while "[y/N]" not in shown and (more := shows(ours, PATIENCE)):
            shown += more
        for _ in range(10):
            if answer != "Ctrl-C":
                os.write(ours, answer.encode())
            else:
                process.send_signal(signal.SIGINT)
            while more := shows(ours, 2):  # silent, it was not yet reading when the signal came
                shown += more
        raise AssertionError(f"it does not end: {shown}")
    except OSError:  # it has closed the other end
        return process.wait(PATIENCE), shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def shows(terminal: int, seconds: float) -> str:
    """What a command shows next; empty if that is nothing for so long. Raises OSError when it has ended."""
    return os.read(terminal, 4096).decode() if select.select([terminal], [], [], seconds)[0] else ""


async def test_without_the_plugin_it_says_what_to_do(area: str) -> None:
    await leave(area, "compute")
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    result = await run("queues", "-u", f"{resolve().url.reveal()}?management={nobody}")
    assert result.exit_code == 5
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: no list of queues from {nobody} (Connect call failed")
    assert "rabbitmq-plugins enable rabbitmq_management" in line


async def test_a_user_who_may_not_ask_is_told_the_tag(area: str, managed: Rabbit) -> None:
    await leave(area, "compute")
    await managed.ctl("add_user", "plain", "secret-word")
    await managed.ctl("set_permissions", "plain", ".*", ".*", ".*")
    result = await run("queues", "-u", f"amqp://plain:secret-word@127.0.0.1:{managed.ports[0]}/")
    assert result.exit_code == 5
    assert 'for the user "plain": it needs the tag "management"' in result.stderr
    assert "secret-word" not in result.output
    assert PASSWORD not in result.output


async def test_without_permission_nothing_happens(area: str, managed: Rabbit) -> None:
    await leave(area, "compute", messages=1)
    await managed.ctl("add_user", "reader", "word")
    await managed.ctl("set_user_tags", "reader", "management")
    await managed.ctl("set_permissions", "reader", "", "", "")
    result = await run("queues", "delete", "*", "--yes", "-u", f"amqp://reader:word@127.0.0.1:{managed.ports[0]}/")
    assert result.exit_code == 5
    assert f'error: cannot delete queue "{area}.compute": ACCESS_REFUSED' in result.stderr
    assert await left(area) == {"compute": 1}


@pytest.mark.parametrize("command", [("queues",), ("queues", "purge", "*", "--yes")])
async def test_a_driver_without_queues_says_so(command: tuple[str, ...]) -> None:
    result = await run(*command, "-u", "fake://")
    assert result.exit_code == 2
    assert result.stderr == "error: the driver of fake:// has no queues to list, purge or delete\n"


@pytest.mark.usefixtures("area")
async def test_the_driver_knows_missing_queues_and_ended_sessions() -> None:
    async with connection() as session:
        driver = session.driver
        assert isinstance(driver, Admin)
        for clear in (driver.purge, driver.delete):
            with pytest.raises(NoServer, match='queue "none": there is no such queue'):
                await clear("none")
    for clear in (driver.purge, driver.delete, driver.queues):
        with pytest.raises(ConnectionLost):
            await clear("none")
