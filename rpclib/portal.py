"""An event loop in a thread, and the way in from other threads. Used by `rpclib.sync` only."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from rpclib.errors import RpcError, TransportClosed

T = TypeVar("T")

_kept: list[Portal] = []
"""Portals inherited by a forked child. Their loops share file descriptors with the parent's: never finalised."""


class Portal:
    """Runs coroutines on a loop thread of its own, from its making to `close`."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._closed = False
        self._lock = threading.RLock()  # a signal handler may submit while its own thread does
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="rpclib-loop", daemon=True)
        self._thread.start()

    @property
    def inherited(self) -> bool:
        """True in a child forked after this was made: the thread is not there."""
        if self._pid == os.getpid():
            return False
        if self not in _kept:
            _kept.append(self)
        return True

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the loop, in a copy of the caller's context. Raises TransportClosed."""
        with self._lock:
            if self._closed:
                coroutine.close()
                raise TransportClosed("the transport is closed")
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for it. Interrupted, it cancels the coroutine."""
        try:
            self.guard()
        except RpcError:
            coroutine.close()
            raise
        future = self.submit(coroutine)
        try:
            return future.result()
        except CancelledError:
            raise TransportClosed("the transport was closed") from None
        except BaseException:
            future.cancel()
            raise

    def guard(self) -> None:
        """Raise RpcError on the loop's own thread, where waiting for the loop would never end."""
        if threading.get_ident() == self._thread.ident:
            raise RpcError(
                "a blocking call was made on the loop that would have to answer it; use the async API in async "
                "endpoints and callbacks"
            )

    def close(self) -> None:
        """Stop the loop and join its thread; what others still run on it ends with TransportClosed."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            with self._lock:
                self._closed = True
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()
