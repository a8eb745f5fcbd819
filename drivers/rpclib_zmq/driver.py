"""The driver: one session with the receiver of the machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Self

from pydantic import BaseModel

from rpclib.address import Address, Kind
from rpclib.driver import Capability, Driver, Gate, Observer, Subscription
from rpclib.driverkit import Ending
from rpclib.errors import ConfigError, ConnectionLost, MessageTooLarge, TransportError, Unreachable
from rpclib.url import TransportURL
from rpclib_zmq.options import ZmqOptions
from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import name_of
from rpclib_zmq.protocol.records import Broken, Record
from rpclib_zmq.rundir import RunDir, default_path
from rpclib_zmq.session import greeting
from rpclib_zmq.session.arrivals import Arrivals
from rpclib_zmq.session.channel import Channel
from rpclib_zmq.session.credits import Credits
from rpclib_zmq.session.greeting import Leaving
from rpclib_zmq.session.heartbeat import Heartbeat
from rpclib_zmq.session.outbox import Outbox, ZmqRoute
from rpclib_zmq.session.questions import Questions
from rpclib_zmq.session.subscription import ZmqSubscription

log = logging.getLogger("rpclib_zmq")

_STARTING = 15.0
"""Seconds to wait for a receiver to start, or for another to leave."""
_GREETING = 5.0
"""Seconds for the receiver to answer a greeting."""
_FAREWELL = 5.0
"""Seconds for the receiver to accept the remaining messages when a session closes."""
_FINAL_WRITE = 0.2
"""Seconds for writing the BYE that confirms the end of a session."""


class ZmqDriver(Driver):
    """One session: one connection to the receiver of the run directory that the URL's path names."""

    spi_version = 0
    capabilities = frozenset(
        {
            Capability.REDELIVERS,
            Capability.UNROUTABLE,
            Capability.PRESENCE,
            Capability.PEER_LOSS,
            Capability.PEER_GONE,
            Capability.EXPIRES,
            Capability.AGES,
            Capability.ORDERED,
            Capability.EXCHANGES,
            Capability.ALL_TYPES,
            Capability.CROSS_PROCESS,
            Capability.CROSS_HOST,
        }
    )
    options = ZmqOptions
    inbox_keys = header.INBOX_KEYS
    all_hosts = True

    def __init__(self, run: RunDir, observer: Observer) -> None:
        self.gate = Gate()
        self._run = run
        self._observer = observer
        self.ending = Ending(observer, self._let_go, log)
        self._loop = asyncio.get_running_loop()
        self._begun = False
        self._welcome: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._emptied = Gate()
        """Shut while a closing session has messages to send."""
        self._farewell = Gate()
        """Shut until the receiver has confirmed the end of the session."""
        self._questions = Questions()
        self._inbox_prefix = ""
        self._sending_paused = False
        """Whether the receiver is leaving and wants no new messages."""
        self._unconfirmed = 0
        """The number of the pause or resume request to confirm once no message waits here; 0: none."""
        self._heartbeat = Heartbeat(self._ping, self._on_silence)
        self._channel = Channel(run.socket, self._on_batch, self._on_end)
        self.credits = Credits(self._channel)
        self._outbox = Outbox(self._channel.emit)
        self._arrivals = Arrivals(self._channel.frame, self._on_record)

    @classmethod
    def check(cls, url: TransportURL, options: BaseModel) -> None:
        if url.hosts:
            raise ConfigError("a zmq URL has no host: it is zmq:// or zmq:///path/of/the/run/directory")

    @classmethod
    async def open(cls, url: TransportURL, options: BaseModel, observer: Observer) -> Self:
        assert isinstance(options, ZmqOptions)
        run = RunDir(Path("/" + url.path) if url.path else default_path())
        deadline = monotonic() + _STARTING
        while monotonic() < deadline:
            if not run.listening():
                if not options.start:
                    raise Unreachable(f"no receiver serves {run.path}: start rpclib-zmq-receiver")
                await run.start(["--idle-exit", str(options.idle_exit), *options.arguments()])
                continue
            driver = cls(run, observer)
            try:
                await driver._greet(options)
                return driver
            except Leaving:
                await driver.close(flush=False)
                await asyncio.sleep(0.02)
            except BaseException:
                await driver.close(flush=False)
                raise
        raise Unreachable(f"no receiver serves {run.path} within {_STARTING:.0f} s, see {run.log}")

    def route(self, address: Address, *, must_arrive: bool = False) -> ZmqRoute:
        return self._outbox.route(name_of(address))

    def send(self, route: Any, body: bytes, ttl: float | None, tag: bytes = b"") -> None:
        if self.ending.error is not None:
            self.ending.check()
        if len(body) > self.max_body:
            raise MessageTooLarge(f"{len(body)} bytes; at most {self.max_body} travel")
        if self._outbox.put(route, body, ttl, tag):
            self._update_gates()

    async def subscribe(self, address: Address, *, prefetch: int, arrived: Callable[[], None]) -> Subscription:
        number = self._questions.number()
        if address.kind is Kind.INBOX:
            address = Address.inbox(f"{self._inbox_prefix}{number:x}")
        subscription = ZmqSubscription(self, number, address, prefetch, arrived)
        self._arrivals.subscriptions[number] = subscription
        try:
            await self.ask(header.SUBSCRIBE, number, name_of(address), prefetch)
        except BaseException:
            self.release(number)
            raise
        return subscription

    async def subscribers(self, address: Address) -> int | None:
        return await self.ask(header.COUNT, self._questions.number(), name_of(address))

    async def close(self, *, flush: bool = True) -> None:
        try:
            if self.ending.close():
                self._fail_waiters(ConnectionLost("the session was closed"))
                if self._begun:
                    await self._say_goodbye(flush)
        finally:
            self._shut()
            await self.ending.join()

    def sever(self) -> None:
        self._lost("severed")

    async def ask(self, kind: int, number: int, name: bytes = b"", value: int = 0) -> int:
        """Ask the receiver and return the value of its answer. Raises ConnectionLost; TransportError if refused."""
        self.ending.check()
        with self._questions.asked(number) as answer:
            self._send_record(kind, number, name, value)
            return await answer

    def release(self, number: int) -> None:
        """Forget a subscription. The receiver passes its untaken messages to other consumers."""
        if self._arrivals.subscriptions.pop(number, None) is not None and self.ending.error is None:
            self._send_record(header.RELEASE, number)

    async def _greet(self, options: ZmqOptions) -> None:
        """Begin the session. Raises Leaving when the receiver leaves instead."""
        self._channel.greet(header.greeting(header.HELLO), greeting.hello())
        try:
            async with asyncio.timeout(_GREETING):
                welcome = greeting.accept(await self._welcome, self._run, options)
        except TimeoutError:
            raise Unreachable(
                f"the receiver (pid {self._run.holder()}) in {self._run.path} does not answer"
            ) from None
        self._outbox.open(welcome.window, welcome.window_bytes)
        self.max_body = welcome.max_body
        self._inbox_prefix = welcome.inbox_prefix
        self._begun = True
        self._heartbeat.start()

    async def _say_goodbye(self, flush: bool) -> None:
        """End the session after sending everything. Returns when the receiver confirms, or at the timeout."""
        self._emptied.full(flush and self._outbox.waiting > 0)
        self._farewell.full(True)
        try:
            async with asyncio.timeout(_FAREWELL):
                await self._emptied.room()
                self._send_record(header.BYE)
                await self._farewell.room()
        except TimeoutError:
            left = self._outbox.waiting
            log.warning(
                "the receiver in %s did not confirm the end; %d messages were not sent", self._run.path, left
            )
        except ConnectionLost as error:
            log.warning("%s while closing; %d messages were not sent", error, self._outbox.waiting)

    def _send_record(self, kind: int, number: int = 0, name: bytes = b"", value: int = 0) -> None:
        """Send a control record, after the report of taken messages."""
        self.credits.report()
        self._channel.send_record(Record(kind, number, value=value, name=name).encode())

    def _ping(self) -> None:
        self._send_record(header.PING)

    def _update_gates(self) -> None:
        """Shut or open the gates of senders, and confirm a pause once no message waits."""
        self.gate.full(self._outbox.full or self._sending_paused)
        if not self._outbox.waiting:
            self._emptied.full(False)
            if self._unconfirmed:
                self._send_record(header.LEAVING, self._unconfirmed)
                self._unconfirmed = 0

    def _on_batch(self, data: bytes) -> None:
        self._heartbeat.silent = 0
        try:
            if self._welcome.done():
                self._arrivals.read(data)
            else:
                self._welcome.set_result(greeting.answer(data, self._channel.frame()))
        except Broken:
            self._lost(f"the receiver in {self._run.path} sent a malformed message")
        except Leaving as error:
            self._welcome.set_exception(error)

    def _on_record(self, record: Record) -> None:
        kind, number = record.kind, record.number
        if kind == header.ACCEPTED:
            self._outbox.accepted(number, record.value, record.ttl)
            if self.gate.shut or self._emptied.shut:
                self._update_gates()
        elif kind == header.UNDELIVERABLE:
            reason = f"{record.name.decode(errors='replace')} at the receiver in {self._run.path}"
            self.ending.tell(self._observer.undeliverable, record.payload, reason)
        elif kind == header.LOST:
            self.ending.tell(self._observer.worker_lost, record.tag)
        elif kind in (header.SUBSCRIBED, header.STOPPED, header.COUNTED):
            self._questions.answered(number, record.value)
        elif kind == header.LEAVING:
            self._pause_sending(number, bool(record.value))
        elif kind == header.BYE:
            self._on_goodbye()
        elif kind == header.REFUSED:
            self._refused(number, record.name.decode(errors="replace"))

    def _pause_sending(self, number: int, paused: bool) -> None:
        """Pause or resume sending, as the leaving receiver asks."""
        self._sending_paused = paused
        self._unconfirmed = number
        self._update_gates()

    def _on_goodbye(self) -> None:
        """Handle a BYE: the receiver confirms the end of the session, or leaves."""
        if self.ending.error is None:
            self._send_record(header.BYE)
            self._channel.flush()
            self._channel.close(linger=_FINAL_WRITE)
            self._lost(f"the receiver in {self._run.path} left")
        self._farewell.full(False)

    def _refused(self, number: int, reason: str) -> None:
        if number:
            self._questions.refused(number, TransportError(f"the receiver refuses: {reason}"))
        else:
            self._lost(f"the receiver ended the session: {reason}")

    def _on_silence(self) -> None:
        self._lost(f"the receiver (pid {self._run.holder()}) in {self._run.path} does not answer any more")

    def _on_end(self, what: str) -> None:
        if not self._welcome.done():
            self._welcome.set_exception(Leaving())
        else:
            self._lost(f"the receiver in {self._run.path} {what}")

    def _lost(self, reason: str) -> None:
        """End the session after a failure."""
        error = ConnectionLost(reason)
        self._emptied.end(error)
        self._farewell.end(error)
        self.ending.lose(error)

    def _let_go(self, error: TransportError) -> None:
        self._fail_waiters(error)
        self._shut()

    def _fail_waiters(self, error: TransportError) -> None:
        """Fail all waiting tasks. Nothing is taken or reported any more."""
        self.gate.end(error)
        self._outbox.end(error)
        self._arrivals.end()
        self._questions.fail(str(error))

    def _shut(self) -> None:
        """Close the connection. Idempotent."""
        self._channel.close()
        self.credits.close()
        self._heartbeat.stop()
