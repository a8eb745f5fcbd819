"""The blocking API: the same names, safe from any thread, and never a silent deadlock."""

from __future__ import annotations

import inspect
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import rpclib
from rpclib import sync
from tests.support.scripted import scripted

PAIRS = [(rpclib.Transport, sync.Transport), (rpclib.Client, sync.Client), (rpclib.Server, sync.Server)]
OWN = {"live"}
"""Public names of the blocking classes that the other modules of rpclib use."""


@pytest.fixture
def url() -> str:
    return f"fake://{uuid.uuid4().hex}"


@pytest.fixture
def rpc(url: str) -> Iterator[sync.Transport]:
    with sync.connect(url, timeout=5, grace=0) as transport:
        yield transport


class Service:
    def __init__(self, rpc: sync.Transport | None = None) -> None:
        self.rpc = rpc
        self.running = threading.Event()
        self.release = threading.Event()

    @rpclib.expose
    async def echo(self, value: Any = None) -> Any:
        return value

    @rpclib.expose
    def plain(self, value: Any = None) -> Any:
        return value

    @rpclib.expose
    def wait(self) -> str:
        self.running.set()
        self.release.wait(20)
        return "done"

    @rpclib.expose
    async def on_the_loop(self) -> str:
        assert self.rpc is not None
        uses: list[Callable[[], object]] = [
            lambda: self.rpc.client("t").call("echo"),  # type: ignore[union-attr]
            lambda: self.rpc.client("t").cast("echo"),  # type: ignore[union-attr]
            lambda: self.rpc.client("t").fanout("echo"),  # type: ignore[union-attr]
            lambda: self.rpc.server("u", [self]).start(),  # type: ignore[union-attr]
            self.rpc.close,
        ]
        for use in uses:
            with pytest.raises(rpclib.RpcError, match="use the async API"):
                use()
        return "told"

    @rpclib.expose
    def nested(self) -> Any:
        assert self.rpc is not None
        return self.rpc.client("t", timeout=1000).call("facts")

    @rpclib.expose
    async def facts(self) -> Any:
        context = rpclib.current_context()
        return [dict(context.metadata), context.remaining]

    @rpclib.expose
    async def interrupt(self) -> None:
        raise KeyboardInterrupt


# The same names.


def methods(cls: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(function)
        for name, function in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_names_and_signatures_match(asynchronous: type, blocking: type) -> None:
    theirs, ours = methods(asynchronous), methods(blocking)
    for name in ours.keys() - OWN:
        here, there = ours[name], theirs[name]
        assert list(here.parameters.values()) == list(there.parameters.values()), name
        given = there.return_annotation.removeprefix("Coroutine[Any, Any, ").removesuffix("]")
        assert here.return_annotation in (given, there.return_annotation, "Any"), name
        assert inspect.getdoc(getattr(blocking, name)), name
    awaited = {
        name
        for name, function in inspect.getmembers(asynchronous, inspect.isfunction)
        if not name.startswith("_")
        and (inspect.iscoroutinefunction(function) or "Coroutine" in str(inspect.signature(function)))
    }
    assert awaited <= ours.keys()


def test_connect_matches() -> None:
    here, there = inspect.signature(sync.connect), inspect.signature(rpclib.connect)
    assert list(here.parameters.values()) == list(there.parameters.values())


def test_errors_are_raised_by_connect() -> None:
    with pytest.raises(rpclib.ConfigError):
        sync.connect("nonsense")
    with pytest.raises(rpclib.CapabilityMissing):
        sync.connect("fake://", require=[rpclib.Capability.CROSS_HOST])


# Use.


def test_everything_once(rpc: sync.Transport) -> None:
    reported: list[rpclib.Undeliverable] = []
    with rpc.server(rpclib.Target("t", server="s"), [Service()], workers=3, grace=1) as server:
        assert server.target.server == "s"
        client = rpc.client("t", timeout=4)
        assert client.call("echo", value=1) == 1
        assert client.to("s").call("plain", value=2) == 2
        assert client.prepare(timeout=1, version="1.0").call("echo") is None
        assert client.target == rpclib.Target("t", exchange="rpclib")
        assert client.prepare(version_cap="1.2").can_send("1.3") is False
        client.cast("echo")
        client.fanout("echo")
        with pytest.raises(rpclib.NoSuchMethod):
            client.call("nothing")
        assert [repr(one)[:5] for one in (rpc, client, server)] == ["<sync"] * 3
    assert rpc.counters.undeliverable == 0
    with sync.connect("fake://", on_undeliverable=reported.append) as other:
        other.client("nobody").cast("m", a=1)
        deadline = time.monotonic() + 5
        while not reported and time.monotonic() < deadline:
            time.sleep(0.005)
        assert reported[0].args == {"a": 1}
        assert other.counters.undeliverable == 1


def test_a_plain_endpoint_may_call_on_and_hands_down_its_time(rpc: sync.Transport) -> None:
    with rpc.server("t", [Service(rpc)]):
        metadata, remaining = rpc.client("t", context={"trace": "x"}, timeout=3).call("nested")
    assert metadata == {"trace": "x"}
    assert 0 < remaining <= 3


def test_blocking_on_its_own_loop_is_told(rpc: sync.Transport) -> None:
    with rpc.server("t", [Service(rpc)]):
        assert rpc.client("t").call("on_the_loop") == "told"
        assert rpc.client("t").call("echo", value="still works") == "still works"


def test_closing_from_a_callback_is_told(url: str) -> None:
    told: list[str] = []
    seen = threading.Event()

    def callback(_: rpclib.Undeliverable) -> None:
        try:
            transport.close()
        except rpclib.RpcError as error:
            told.append(str(error))
        seen.set()

    transport = sync.connect(url, on_undeliverable=callback)
    with transport:
        transport.client("nobody").cast("m")
        assert seen.wait(5)
        assert "use the async API" in told[0]
        with transport.server("t", [Service()]):
            assert transport.client("t").call("echo", value=1) == 1


def loops() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rpclib-loop"]


def test_no_thread_is_left(url: str) -> None:
    before = len(loops())
    with sync.connect(url):
        assert len(loops()) == before + 1
    assert len(loops()) == before
    driver = scripted()

    async def on_open(host: str) -> None:
        raise rpclib.AccessDenied("no")

    driver.world.on_open = on_open
    with pytest.raises(rpclib.AccessDenied):
        sync.connect("x://h", driver=driver).open()
    assert len(loops()) == before


def test_before_and_after() -> None:
    rpc = sync.connect("fake://")
    client = rpc.client("t")
    for _ in range(2):
        for use in (lambda: client.call("m"), lambda: client.cast("m"), lambda: rpc.server("t", [Service()])):
            with pytest.raises(rpclib.TransportClosed):
                use()
        rpc.close()
    with rpc:
        server = rpc.server("t", [Service()])
        server.start()
        assert client.call("echo", value=1) == 1
    rpc.close()
    server.stop()
    for use in (lambda: client.call("m"), server.wait, server.start):
        with pytest.raises(rpclib.TransportClosed):
            use()
    with pytest.raises(rpclib.ConfigError, match="opened before"):
        rpc.open()


# Threads.


def test_thirty_two_threads(rpc: sync.Transport) -> None:
    with rpc.server("t", [Service()]), ThreadPoolExecutor(32) as pool:
        client = rpc.client("t")

        def work(number: int) -> list[Any]:
            own = client.prepare(timeout=4)
            return [own.call("plain" if turn % 5 == 0 else "echo", value=(number, turn)) for turn in range(20)]

        for number, results in enumerate(pool.map(work, range(32))):
            assert results == [[number, turn] for turn in range(20)]


def test_closing_ends_what_other_threads_wait_for(url: str) -> None:
    for _ in range(5):
        rpc = sync.connect(url, grace=0)
        rpc.open()
        service = Service()
        server = rpc.server("t", [service])
        server.start()
        ended: list[BaseException] = []

        def work(client: sync.Client) -> None:
            try:
                while True:
                    client.call("echo")
            except BaseException as error:
                ended.append(error)  # noqa: B023

        threads = [threading.Thread(target=work, args=(rpc.client("t"),)) for _ in range(16)]
        for thread in threads:
            thread.start()
        rpc.client("t").call("echo")
        rpc.close()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive(), "a call never ended"
        assert {type(error) for error in ended} <= {
            rpclib.TransportClosed,
            rpclib.NoServer,
            rpclib.WorkerLost,
        }, ended
        assert len(ended) == 16


def test_waiting_for_a_server_ends_with_it(rpc: sync.Transport) -> None:
    server = rpc.server("t", [Service()])
    server.start()
    waiting = threading.Thread(target=server.wait)
    waiting.start()
    server.stop(grace=0)
    waiting.join(5)
    assert not waiting.is_alive()


def test_serving_forever_belongs_into_the_main_thread(rpc: sync.Transport) -> None:
    server = rpc.server("t", [Service()])
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(server.serve_forever).exception(5)
    assert isinstance(error, rpclib.RpcError)
    assert "main thread" in str(error)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_died_leaves_nobody_waiting(url: str) -> None:
    """KeyboardInterrupt ends the loop it is raised in, whoever raises it there."""
    rpc = sync.connect(url, grace=0)
    rpc.open()
    rpc.server("t", [Service()]).start()
    for _ in range(2):
        with pytest.raises(rpclib.TransportClosed):
            rpc.client("t").call("interrupt")
    with pytest.raises(rpclib.TransportClosed):
        rpc.close()
