"""Calls in flight, their replies and their deadlines."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

from rpclib import errors
from rpclib.errors import CallTimeout, NoServer, RemoteError, RpcError, TransportError, WorkerLost
from rpclib.link.link import Link
from rpclib.link.sender import Sender
from rpclib.wire.answer import Failure, Result

_APART = 0.1
"""Seconds between two looks through the table, at least."""


class Call:
    """One call in flight. Plain slots, because one is made per call. Times are of the link's clock."""

    __slots__ = (
        "absent",
        "deadline",
        "future",
        "id",
        "method",
        "resends",
        "returned",
        "route_grace",
        "sender",
        "sent",
        "timer",
    )

    def __init__(
        self,
        id: bytes,
        sender: Sender,
        method: str,
        future: asyncio.Future[Any],
        sent: float,
        deadline: float,
        route_grace: float,
    ) -> None:
        self.id = id
        self.sender = sender
        self.method = method
        self.future = future
        self.sent = sent
        self.deadline = deadline
        self.route_grace = route_grace
        self.resends = 0
        self.absent = 0
        self.returned: NoServer | None = None
        """Set while no server has the request: it came back and was not sent again yet."""
        self.timer: asyncio.TimerHandle | None = None
        """Belongs to `Calls`."""

    def __str__(self) -> str:
        return f"{self.method} on {self.sender.address}"

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Calls:
    """The table of calls in flight. Every call in it ends by its deadline.

    Almost every call ends long before its deadline, so a timer for each call is waste, and so is sorting the calls.
    One timer stands at the earliest deadline. When it fires, that call has usually ended, and the table is looked
    through for the next deadline. Only calls within `_APART` of their deadline get timers of their own.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self.table: dict[bytes, Call] = {}
        self.late = 0
        """Replies whose calls had ended."""
        self._look = inf
        """The time of the next look through the table."""
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: Call) -> None:
        self.table[call.id] = call
        if call.deadline < self._look:
            self._watch(call)

    def remove(self, call: Call) -> None:
        """Forget a call whose caller does not wait any more. A resolved call is not in the table."""
        self.table.pop(call.id, None)
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None

    def resolve(self, reply: Result | Failure) -> None:
        """End the call that a reply belongs to. A reply without a call in flight is counted in `late`."""
        call = self.table.pop(reply.id, None)
        if call is None:
            self.late += 1
            return
        if call.timer is not None:
            call.timer.cancel()
        if call.future.done():
            self.late += 1
        elif type(reply) is Result:
            call.future.set_result(reply.value)
        else:
            assert isinstance(reply, Failure)
            call.future.set_exception(rebuild(reply))

    def worker_lost(self, id: bytes) -> None:
        """End the call ``id``, if it is in flight: the worker that had taken it is gone."""
        call = self.table.get(id)
        if call is not None:
            call.fail(WorkerLost(f"the worker that had taken {call} went away", maybe_executed=True))

    def fail_sent(self, error: TransportError) -> None:
        """End every call that is under way with ``error``. Those that came back wait to be sent again."""
        for call in list(self.table.values()):
            if call.returned is None:
                call.fail(errors.again(error, f"{error} (while waiting for {call})"))

    def close(self, error: TransportError) -> None:
        """End every call with ``error``."""
        for call in list(self.table.values()):
            call.fail(errors.again(error, f"{error} (while waiting for {call})"))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self, call: Call) -> None:
        """Make sure that a call ends at its deadline, which is earlier than the next look."""
        left = call.deadline - self._link.now()
        if left < _APART:
            call.timer = self._link.loop.call_later(left, self._expire, call)
        else:
            self._look_at(call.deadline, left)

    def _look_at(self, when: float, left: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._look = when
        self._timer = self._link.loop.call_later(left, self._look_through)

    def _look_through(self) -> None:
        now, first = self._link.now(), inf
        self._look, self._timer = inf, None
        for call in self.table.values():
            if call.timer is None:
                left = call.deadline - now
                if left < _APART:
                    call.timer = self._link.loop.call_later(left, self._expire, call)
                elif call.deadline < first:
                    first = call.deadline
        if first < inf:
            self._look_at(first, first - now)

    def _expire(self, call: Call) -> None:
        call.fail(
            call.returned
            or CallTimeout(
                f"no reply from {call} within {self._link.now() - call.sent:.1f} s; it was sent and may have run. "
                "Is the server busy, or the timeout too short?"
            )
        )


def rebuild(failure: Failure) -> Exception:
    """The exception a caller sees for an ERROR envelope. Only registered classes are ever built."""
    if failure.code != RemoteError.code:
        cls = errors.by_code(failure.code)
        if cls is None or not isinstance(cls, type) or cls is RpcError:
            return RemoteError(failure.code, failure.message, failure.traceback)
        if issubclass(cls, errors.MaybeExecuted):
            return cls(failure.message, maybe_executed=failure.details.get("maybe_executed") is not False)
        return cls(failure.message)
    remote = RemoteError(failure.type, failure.message, failure.traceback)
    registered = errors.REGISTERED.get(failure.type)
    if registered is None or failure.args is None:
        return remote
    try:
        rebuilt = registered(*failure.args)
        rebuilt.__cause__ = remote
    except Exception:  # its constructor may do anything, even return something else
        return remote
    return rebuilt
