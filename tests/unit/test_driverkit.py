"""What drivers share: the end of a session, its buffers, and names."""

from __future__ import annotations

import asyncio
import logging
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rpclib
from rpclib.address import Address, Kind
from rpclib.driver import Delivery, Gate
from rpclib.driverkit import Ending, Held, ReceiveBuffer, SendBuffer, address_name
from rpclib.driverkit.sending import HELD_AT_MOST, HELD_BYTES_AT_MOST
from rpclib.errors import ConnectionLost, TransportError, again
from rpclib.testing.waiting import Recorder
from tests.support.scripted import turns

LOG = logging.getLogger("driverkit-test")


# Errors.


@pytest.mark.parametrize(
    "error", [ConnectionLost("x", maybe_executed=True), ConnectionLost("y"), rpclib.AccessDenied("z")]
)
def test_again_is_another_object_and_the_same_error(error: TransportError) -> None:
    made, other = again(error), again(error, "other words")
    assert made is not error
    assert (type(made), str(made), vars(made)) == (type(error), str(error), vars(error))
    assert (type(other), str(other), vars(other)) == (type(error), "other words", vars(error))


# Gates.


async def test_a_gate_lets_everybody_through_once_it_opens() -> None:
    gate = Gate()
    await gate.room()
    gate.full(True)
    waiting = [asyncio.create_task(gate.room()) for _ in range(3)]
    await turns()
    waiting[0].cancel()
    gate.full(False)
    gate.full(True)  # before any of them could go
    await turns()
    assert [task.done() for task in waiting] == [True, False, False]
    gate.full(False)
    await asyncio.gather(*waiting[1:])


async def test_an_ended_gate_is_open_and_raises_errors_of_their_own() -> None:
    gate = Gate()
    gate.full(True)
    waiting = [asyncio.create_task(gate.room()) for _ in range(2)]
    await turns()
    gate.end(rpclib.AccessDenied("why"))
    gate.end(ConnectionLost("never mind"))
    gate.full(True)
    assert not gate.shut
    errors = await asyncio.gather(*waiting, gate.room(), return_exceptions=True)
    assert [(type(error), str(error)) for error in errors] == [(ConnectionLost, "why")] * 3
    assert len({id(error) for error in errors}) == 3


# The end of a session.


class Session:
    def __init__(self) -> None:
        self.observer = Recorder()
        self.let_go: list[TransportError] = []
        self.ending = Ending(self.observer, self.let_go.append, LOG)


async def test_the_end_is_told_once_and_later() -> None:
    session, error = Session(), ConnectionLost("gone", maybe_executed=True)
    session.ending.check()
    session.ending.lose(error)
    session.ending.lose(ConnectionLost("gone again"))
    assert (session.let_go, session.observer.losses) == ([error], [])
    await turns()
    assert session.observer.losses == [error]
    errors = []
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="gone") as caught:
            session.ending.check()
        errors.append(caught.value)
    assert len({id(each) for each in (error, *errors)}) == 3
    assert not errors[0].maybe_executed
    assert not session.ending.close()


async def test_after_close_nothing_is_told() -> None:
    session = Session()
    session.ending.tell_later(session.observer.worker_lost, b"t")
    assert session.ending.close()
    assert not session.ending.close()
    session.ending.lose(ConnectionLost("late"))
    session.ending.tell(session.observer.undeliverable, b"x", "late")
    await turns()
    assert (session.observer.told, session.let_go) == (0, [])
    with pytest.raises(ConnectionLost, match="closed"):
        session.ending.check()


async def test_a_close_right_after_the_loss_silences_it() -> None:
    session = Session()
    session.ending.lose(ConnectionLost("gone"))
    assert not session.ending.close()
    await turns()
    assert session.observer.losses == []


async def test_exceptions_in_callbacks_and_tasks_end_the_session(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*args: int) -> None:
        raise ZeroDivisionError(f"a bug with {args}")

    async def task() -> None:
        broken(2)

    for how in ("callback", "task"):
        session = Session()
        callback = session.ending.guard(broken)
        if how == "callback":
            callback(1)
        else:
            session.ending.start(task())
        await turns()
        [error] = session.observer.losses
        assert isinstance(error, ConnectionLost)
        assert "ZeroDivisionError: a bug with" in str(error)
        callback(3)  # nothing happens any more
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


async def test_a_transport_error_of_a_task_is_the_loss_itself(caplog: pytest.LogCaptureFixture) -> None:
    session, denied = Session(), rpclib.AccessDenied("no")

    async def task() -> None:
        raise denied

    session.ending.start(task())
    await turns()
    assert session.observer.losses == [denied]
    assert not caplog.records


async def test_join_ends_the_tasks() -> None:
    session, done = Session(), []

    async def task() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            done.append(1)

    for _ in range(3):
        session.ending.start(task())
    await turns(1)
    session.ending.close()
    await session.ending.join()
    assert done == [1, 1, 1]
    await session.ending.join()


# What was received.


class Basket(ReceiveBuffer):
    def __init__(self, arrived: Any, prefetch: int = 0) -> None:
        super().__init__(Address(Kind.ONE, "e", "t"), prefetch, arrived)
        self.settled: list[tuple[int, int, int]] = []

    def left(self, taken: list[Delivery], count: int, size: int) -> None:
        self.settled.append((len(taken), count, size))

    async def stop(self) -> None:
        self.silence()

    async def close(self) -> None:
        self.end()


async def test_what_comes_together_is_told_once_and_taken_in_order() -> None:
    now, told = asyncio.get_running_loop().time(), [0]
    basket: Basket = Basket(lambda: told.append(basket.waiting))
    for number in range(5):
        basket.put(Held(b"%d" % number, number == 1, now - 10, now - 1 if number in (0, 3) else None))
    assert told == [0]
    await turns()
    assert told == [0, 5]
    taken = basket.take(2)
    assert [(item.body, item.redelivered) for item in taken] == [(b"1", True), (b"2", False)]
    assert 10 <= taken[0].waited < 60
    assert [item.body for item in basket.take(9)] == [b"4"]
    assert (basket.take(1), basket.settled) == ([], [(2, 3, 3), (1, 2, 2)])


@pytest.mark.parametrize("how", ["stop", "close"])
async def test_nothing_is_told_once_it_is_stopped(how: str) -> None:
    told: list[int] = []
    basket = Basket(lambda: told.append(1), prefetch=3)
    assert basket.prefetch == 3
    basket.put(Held(b"x", False, 0.0))
    await (basket.stop() if how == "stop" else basket.close())
    await turns()
    assert told == []
    assert [item.body for item in basket.take(2)] == ([b"x"] if how == "stop" else [])


# What is sent.


class Wire:
    def __init__(self, **options: Any) -> None:
        self.writes: list[list[bytes]] = []
        self.buffer = SendBuffer(self.writes.append, one_message=1, **options)

    def send(self, *bodies: bytes) -> None:
        for body in bodies:
            self.buffer.add((body,), len(body))


async def test_one_by_one_each_leaves_at_once() -> None:
    wire = Wire()
    for number in range(3):
        wire.send(b"%d" % number)
        assert len(wire.writes) == number + 1
        await turns(2)


async def test_what_a_turn_sends_leaves_together() -> None:
    wire = Wire()
    wire.send(b"0", b"1", b"2")
    assert wire.writes == [[b"0"]], "the first of a turn after a quiet one"
    await turns(2)
    assert wire.writes[1:] == [[b"1", b"2"]]
    wire.send(b"3", b"4")
    assert len(wire.writes) == 2, "the turn before was not quiet"
    await turns(2)
    assert wire.writes[2:] == [[b"3", b"4"]]


@pytest.mark.parametrize("limit", [{"flush_at": 3}, {"most": 3}])
async def test_much_does_not_wait_for_the_end_of_the_turn(limit: dict[str, int]) -> None:
    wire = Wire(**limit)
    wire.send(b"0", b"1", b"2", b"3")
    assert wire.writes == [[b"0"], [b"1", b"2", b"3"]]
    wire.buffer.add_later(b"4")
    assert len(wire.writes) == 2
    wire.buffer.clear()
    await turns(2)
    assert len(wire.writes) == 2


async def test_a_turns_end_that_was_arranged_takes_what_comes_in_it() -> None:
    wire, loop = Wire(), asyncio.get_running_loop()
    loop.call_soon(wire.send, b"1", b"2")  # a task that was woken
    wire.buffer.turn_next()
    await asyncio.sleep(0)
    assert wire.writes == [[b"1", b"2"]]


@pytest.mark.parametrize("body", [b"", bytes(1 << 20)])
async def test_a_paused_buffer_holds_and_shuts_the_gate(body: bytes) -> None:
    gate = Gate()
    wire = Wire(gate=gate)
    wire.buffer.paused(True)
    sent = 0
    while not gate.shut:
        wire.send(body)
        wire.buffer.flush()
        sent += 1
    assert sent == min(HELD_AT_MOST, HELD_BYTES_AT_MOST // (len(body) or 1))
    wire.send(b"and one more")
    assert wire.writes == []
    wire.buffer.paused(False)
    assert (len(wire.writes[0]), gate.shut) == (sent + 1, False)
    await turns(2)


# Names.

WORD = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=80)
SERVER = st.text(string.ascii_letters + string.digits + "_-.:@", max_size=100)
ADDRESSES = st.one_of(
    st.builds(Address, st.just(Kind.ONE), WORD, WORD, SERVER),
    st.builds(Address, st.just(Kind.ALL), WORD, WORD),
    st.builds(Address.inbox, st.text(min_size=1, max_size=255)),
)
ALPHABET = "_" + string.ascii_lowercase + string.digits


@given(ADDRESSES, ADDRESSES, st.sampled_from([42, 60, 250, 10_000]))
def test_names_never_collide(one: Address, two: Address, longest: int) -> None:
    names = [address_name(address, ALPHABET, longest) for address in (one, two)]
    assert (names[0] == names[1]) == (one == two)
    assert all(0 < len(name) <= longest and set(name) <= set(ALPHABET) for name in names)


@given(st.lists(st.text("_a", max_size=3), min_size=4, max_size=4), st.lists(st.text("_a", max_size=3), min_size=4))
def test_parts_do_not_run_into_each_other(one: list[str], two: list[str]) -> None:
    addresses = [Address(Kind.ONE, *parts[:3]) for parts in (one, two)]
    names = [address_name(address, ALPHABET, 1000) for address in addresses]
    assert (names[0] == names[1]) == (addresses[0] == addresses[1])


def test_names_are_readable() -> None:
    alphabet = "~" + string.ascii_letters + string.digits + "_-.:@"
    assert address_name(Address(Kind.ONE, "nova", "compute", "h.1"), alphabet, 250) == "one~~nova~~compute~~h.1"
    assert address_name(Address.inbox("../one"), alphabet.replace(".", ""), 250) == "inbox~~~~~~~2e~2e~2fone"


@pytest.mark.parametrize(
    ("alphabet", "longest"), [("0123456789abcdef", 50), ("xyz", 50), ("x0123456789abcdef", 41)]
)
def test_what_cannot_name_addresses_is_refused(alphabet: str, longest: int) -> None:
    with pytest.raises(ValueError):
        address_name(Address.inbox("k"), alphabet, longest)
