"""The server: its definition, starting it, and stopping it at any moment."""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import Any

import pytest

import rpclib
from rpclib.address import Address
from rpclib.link import backoff
from rpclib.testing.inside import inside
from rpclib.wire.answer import Failure, Result
from rpclib.wire.kinds import CAST
from tests.support.asking import EVERY, OWN, SHARED, serving
from tests.support.scripted import scripted, turns, until


class Service:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running = 0
        self.ran: list[Any] = []

    @rpclib.expose
    async def echo(self, value: Any = None) -> Any:
        self.ran.append(value)
        return value

    @rpclib.expose
    async def wait(self) -> str:
        self.running += 1
        await self.gate.wait()
        return "done"

    @rpclib.expose
    async def stubborn(self) -> str:
        self.running += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "finished all the same"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "delay", lambda *_: 0.0)


# Making one.


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"workers": 0}, "from 1 to 10000, not 0"),
        ({"workers": 10_001}, "not 10001"),
        ({"workers": 1.5}, "not 1.5"),
        ({"workers": True}, "not True"),
        ({"grace": -1}, "grace must be a number of seconds, not -1"),
        ({"grace": math.nan}, "not nan"),
        ({"grace": math.inf}, "not inf"),
        ({"grace": "5"}, "not '5'"),
        ({"endpoints": []}, "at least one endpoint"),
        ({"endpoints": Service()}, "as a list"),
        ({"endpoints": [Service]}, "Service is a class"),
        ({"endpoints": [object()]}, "exposes nothing"),
        ({"target": rpclib.Target(server="s")}, "needs a topic"),
        ({"target": "a b"}, "topic 'a b' contains ' '"),
    ],
)
def test_bad_definitions_are_told_at_once(options: dict[str, Any], told: str) -> None:
    rpc = rpclib.connect("x://h", driver=scripted())
    with pytest.raises(rpclib.ConfigError, match=told):
        rpc.server(**{"target": "t", "endpoints": [Service()], **options})
    assert not inside(rpc).servers


async def test_defaults() -> None:
    rpc = rpclib.connect("x://h", driver=scripted(), workers=7, grace=3)
    server = rpc.server("t", [Service()])
    assert (server.workers, server.grace) == (7, 3)
    assert server.target.server
    assert server.target.exchange == "rpclib"
    assert repr(server) == f"<Server t.{server.target.server} on x://h>"
    assert inside(rpc).servers == [server]
    await rpc.close()
    assert not inside(rpc).servers


async def test_where_it_serves() -> None:
    async with serving(Service(), workers=3) as server:
        assert server.world.subscribed[1:] == [SHARED, OWN, EVERY]
        for to in (SHARED, OWN, EVERY):
            assert await server.ask("echo", to=to, value=1) == 1


async def test_it_starts_once() -> None:
    async with serving(Service()) as server:
        with pytest.raises(rpclib.ConfigError, match="started before"):
            await server.server.start()


async def test_a_start_that_fails_leaves_nothing() -> None:
    driver = scripted()

    async def on_subscribe(address: Address) -> None:
        if address == EVERY:
            raise rpclib.AccessDenied("no fanout for you")

    driver.world.on_subscribe = on_subscribe
    async with rpclib.connect("x://h", driver=driver) as rpc:
        with pytest.raises(rpclib.AccessDenied, match="no fanout"):
            await rpc.server("t", [Service()]).start()
        assert not inside(rpc).servers
        assert len(driver.world.session.subscriptions) == 1, "the inbox only"


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    driver = scripted()
    reached = asyncio.Event()

    async def on_subscribe(address: Address) -> None:
        if address == EVERY:
            reached.set()
            await asyncio.Event().wait()

    driver.world.on_subscribe = on_subscribe
    async with rpclib.connect("x://h", driver=driver) as rpc:
        starting = asyncio.create_task(rpc.server("t", [Service()]).start())
        await reached.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not inside(rpc).servers
        assert len(driver.world.session.subscriptions) == 1


# Stopping.


async def test_what_runs_is_finished_and_answered() -> None:
    service = Service()
    async with serving(service) as server:
        ident = server.put("wait")
        await until(lambda: service.running)
        stopping = asyncio.create_task(server.server.stop())
        await turns()
        assert not stopping.done()
        late = server.put("echo", value="late")
        service.gate.set()
        await stopping
        assert isinstance(server.answers(ident)[0], Result)
        assert not server.answers(late)
        assert service.ran == []


async def test_what_arrived_is_run_within_the_grace() -> None:
    service = Service()
    async with serving(service, workers=1) as server:
        server.put("wait")
        ids = [server.put("echo", value=number) for number in range(5)]
        await until(lambda: service.running)
        stopping = asyncio.create_task(server.server.stop())
        await turns()
        service.gate.set()
        await stopping
        assert service.ran == [0, 1, 2, 3, 4]
        assert all(server.answers(ident) for ident in ids)


@pytest.mark.parametrize("grace", [0, 0.05])
async def test_what_outlives_the_grace_is_cancelled_and_told(
    grace: float, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service()
    async with serving(service, grace=60) as server:
        ids = [server.put("wait"), server.put("wait"), server.put("wait", kind=CAST)]
        await until(lambda: service.running == 3)
        began = monotonic()
        await server.server.stop(grace=grace)
        assert grace <= monotonic() - began < 3
        for ident in ids[:2]:
            [failure] = server.answers(ident)
            assert isinstance(failure, Failure)
            assert (failure.code, failure.details) == ("WORKER_LOST", {"maybe_executed": True})
            assert "was stopped while it ran wait" in failure.message
        assert not server.answers(ids[2])
    assert "server t.s: 3 requests outlived the grace" in caplog.text


async def test_an_endpoint_may_finish_when_it_is_cancelled() -> None:
    service = Service()
    async with serving(service) as server:
        ident = server.put("stubborn")
        await until(lambda: service.running)
        await server.server.stop(grace=0)
        [found] = server.answers(ident)
        assert isinstance(found, Result)
        assert found.value == "finished all the same"


async def test_stopping_twice(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Service()) as server:
        await server.server.stop(grace=0)
        assert not caplog.records, "nothing outlived anything"
        await server.server.stop()
        await server.server.stop()
        await server.server.stop(grace=0)
        await asyncio.wait_for(server.server.wait(), 1)
        assert inside(server.rpc).servers == []


async def test_stopping_what_never_started() -> None:
    rpc = rpclib.connect("x://h", driver=scripted())
    server = rpc.server("t", [Service()])
    await server.stop()
    assert inside(rpc).servers == []


async def test_a_second_stop_waits_for_the_first_and_one_with_0_ends_it() -> None:
    service = Service()
    async with serving(service, grace=60) as server:
        server.put("wait")
        await until(lambda: service.running)
        first = asyncio.create_task(server.server.stop())
        second = asyncio.create_task(server.server.stop())
        waiting = asyncio.create_task(server.server.wait())
        await turns()
        assert not any(task.done() for task in (first, second, waiting))
        await asyncio.wait_for(server.server.stop(grace=0), 5)
        await asyncio.gather(first, second, waiting)


async def test_a_stop_that_is_cancelled_stops_at_once() -> None:
    service = Service()
    async with serving(service, workers=1, grace=60) as server:
        running, held = server.put("wait"), server.put("echo")
        await until(lambda: server.server.saturated)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await server.server.stop()
        await asyncio.wait_for(server.server.wait(), 1)
        [failure] = server.answers(running)
        assert isinstance(failure, Failure)
        assert failure.code == "WORKER_LOST"
        assert [request.id for _, request in server.passed_on] == [held]


async def test_stopping_while_disconnected() -> None:
    service = Service()
    async with serving(service) as server:
        ids = [server.put("wait"), server.put("wait", remaining=60.0)]
        await until(lambda: service.running == 2)

        async def on_open(host: str) -> None:
            await asyncio.Event().wait()

        server.world.on_open = on_open
        server.world.session.lose()
        await turns()
        await asyncio.wait_for(server.server.stop(grace=0), 3)
        assert not any(server.answers(ident) for ident in ids)
        await asyncio.wait_for(server.rpc.close(), 3)
        await turns()
        assert server.rpc.counters.unanswered == 2


async def test_losing_the_session_while_stopping() -> None:
    service = Service()
    async with serving(service) as server:
        ident = server.put("wait")
        await until(lambda: service.running)
        stopping = asyncio.create_task(server.server.stop())
        await turns()
        server.world.session.lose()
        await turns()
        service.gate.set()
        await asyncio.wait_for(stopping, 3)
        await server.answer(ident)
        topics = {tray.address.topic for tray in server.world.session.subscriptions}
        assert topics == {""}, "a stopped server was subscribed again"


@pytest.mark.parametrize("method", ["stop", "close"])
@pytest.mark.parametrize("error", [rpclib.ConnectionLost("dead"), rpclib.AccessDenied("not yours")])
async def test_a_backend_that_refuses_while_stopping(
    method: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(Service()) as server:

        async def dead() -> None:
            raise error

        shared, own, every = server.world.session.subscriptions[1:]
        monkeypatch.setattr(shared, method, dead)
        await server.server.stop()
        assert own.closed
        assert every.closed


async def test_a_backend_that_does_not_confirm_the_end_of_the_intake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpclib.serving.server._STOP_INTAKE", 0.05)
    async with serving(Service(), grace=0.05) as server:

        async def hang() -> None:
            await asyncio.Event().wait()

        for tray in server.world.session.subscriptions:
            monkeypatch.setattr(tray, "stop", hang)
        await asyncio.wait_for(server.server.stop(), 3)


async def test_closing_the_transport_stops_its_servers() -> None:
    service, driver = Service(), scripted()
    rpc = rpclib.connect("x://h", driver=driver, grace=60)
    await rpc.open()
    servers = [rpc.server(rpclib.Target("t", server=name), [service]) for name in "abc"]
    for server in servers[:2]:
        await server.start()
    call = asyncio.create_task(rpc.client("t").call("wait"))
    await until(lambda: service.running)
    closing = asyncio.create_task(rpc.close())
    await turns()
    service.gate.set()
    await closing
    assert await call == "done"
    await asyncio.gather(*(server.wait() for server in servers[:2]))
    assert not inside(rpc).servers
