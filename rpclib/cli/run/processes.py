"""Several processes that serve the same: started, started again when they crash, stopped together."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import random
import signal
from multiprocessing.context import SpawnProcess

from rpclib.cli.run.serving import CHANGED, Job, leave, work
from rpclib.serving import signals

log = logging.getLogger("rpclib")

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0
_LAST_WORDS = 2.0
_USAGE = 2


class Processes:
    """``count`` processes doing one job."""

    def __init__(self, job: Job, count: int, *, reload: bool) -> None:
        self._job = job
        self._count = count
        self._reload = reload
        self._running: dict[int, SpawnProcess] = {}
        self._stopping = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """Keep them running until SIGTERM or SIGINT, which goes on to them; a second signal too.

        Returns when all are gone: 0, or the code of one that could not work.
        """
        with signals.on_loop(self.stop, self._stop_now):
            await asyncio.gather(*(self._keep(number) for number in range(1, self._count + 1)))
        return self._code

    def stop(self) -> None:
        """Tell all processes to stop."""
        self._stopping.set()
        for process in self._running.values():
            process.terminate()

    def _stop_now(self) -> None:
        """Tell all processes to stop at once, and kill those that do not."""
        self.stop()
        asyncio.get_running_loop().call_later(_LAST_WORDS, self._kill)

    def _kill(self) -> None:
        for process in self._running.values():
            process.kill()

    async def _keep(self, number: int) -> None:
        """Run process ``number`` until it ends as told, or cannot work for a reason that stays."""
        crashes = 0
        while not self._stopping.is_set():
            began = asyncio.get_running_loop().time()
            code = await self._run_once(number, greet=number == 1 and not crashes)
            if self._stopping.is_set() or code == 0:
                self._code = self._code or (code if code > 0 else 0)
                return
            if code == CHANGED:
                continue
            if code == _USAGE:
                self._code = code
                self.stop()
                return
            crashes = 1 if asyncio.get_running_loop().time() - began > LONGEST_PAUSE else crashes + 1
            pause = random.uniform(0.5, 1.0) * min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(crashes - 1, 10))
            log.warning("process %d ended with code %d; starting it again in %.1f s", number, code, pause)
            try:
                await asyncio.wait_for(self._stopping.wait(), pause)
            except TimeoutError:
                continue

    async def _run_once(self, number: int, *, greet: bool) -> int:
        context = multiprocessing.get_context("spawn")
        process = context.Process(
            target=_child, args=(self._job, number, greet, self._reload), name=f"rpclib-{number}"
        )
        # The signals of the terminal are for this process alone until the child has left its group.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._running[number] = process
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(process.sentinel)
            del self._running[number]
        process.join()
        code = process.exitcode
        process.close()
        return 1 if code is None else code


def _child(job: Job, number: int, greet: bool, reload: bool) -> None:
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    leave(work(job, number=number, greet=greet, reload=reload))
