"""The end of a session, which every driver has to tell once, later, and not after `Driver.close`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from rpclib.errors import ConnectionLost, TransportError

if TYPE_CHECKING:
    from rpclib.driver import Observer


class Ending:
    """Whether a session is dead, and who is told.

    ``on_lost(error)`` is called once when the session ends by itself, at once, to let go of what it holds. The
    observer is told in a later turn. ``log`` gets what nobody expected.
    """

    def __init__(
        self, observer: Observer, on_lost: Callable[[TransportError], object], log: logging.Logger
    ) -> None:
        self.error: TransportError | None = None
        """Why the session is dead; None while it lives. `Driver.send` looks here first."""
        self._observer = observer
        self._on_lost = on_lost
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._silent = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def check(self) -> None:
        """Raise ConnectionLost on a dead session: a new one, for what was asked just now and was not done."""
        if self.error is not None:
            raise ConnectionLost(str(self.error))

    def lose(self, error: TransportError) -> None:
        """The session ended by itself. The first who says so is believed; nothing happens after `close`."""
        if self.error is None:
            self.error = error
            self._on_lost(error)
            self._loop.call_soon(self._tell_lost, error)

    def close(self) -> bool:
        """`Driver.close` was called: from now on nobody is told anything. False if the session was dead already."""
        self._silent = True
        if self.error is not None:
            return False
        self.error = ConnectionLost("the session was closed")
        return True

    def tell(self, report: Callable[..., object], *args: object) -> None:
        """Call one of the observer's methods, unless the session is dead. Not from inside a call to the driver."""
        if self.error is None:
            report(*args)

    def tell_later(self, report: Callable[..., object], *args: object) -> None:
        """The same in a later turn."""
        self._loop.call_soon(self.tell, report, *args)

    def guard(self, callback: Callable[..., object]) -> Callable[..., None]:
        """The callback to give to an SDK: does nothing on a dead session, and an exception ends the session."""

        def guarded(*args: Any, **kwargs: Any) -> None:
            if self.error is None:
                try:
                    callback(*args, **kwargs)
                except Exception as error:
                    self._failed(error)

        return guarded

    def start(self, coroutine: Coroutine[Any, Any, object]) -> asyncio.Task[Any]:
        """Run a task of the session: `join` ends it, an exception out of it ends the session."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def join(self) -> None:
        """Cancel the tasks of the session and return when they have ended."""
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _tell_lost(self, error: TransportError) -> None:
        if not self._silent:
            self._silent = True
            self._observer.lost(error)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, TransportError):
            self._log.error("the session is given up: unexpected error", exc_info=error)
            error = ConnectionLost(f"{type(error).__name__}: {error}", maybe_executed=True)
        self.lose(error)
