"""The run directory: the meeting point of the receiver and the sessions of a machine.

The directory contains the socket and the log of the receiver, and two lock files. The receiver holds
``receiver.lock`` while it runs; a process that starts a receiver holds ``start.lock`` until it is ready. The kernel
releases the locks when their process ends, so no file ever needs to be removed by hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rpclib.errors import AccessDenied, Unreachable

_LONGEST_SOCKET_PATH = 100  # the kernel's limit is 107 bytes
_READY = "ready"


def default_path() -> Path:
    """The default run directory of this user on this machine."""
    return Path(tempfile.gettempdir()) / f"rpclib-{os.geteuid()}"


class RunDir:
    """A directory private to this user, created if it does not exist.

    Raises AccessDenied when the path belongs to another user, is open to others, or is no directory; Unreachable
    when the directory cannot be made or its path is too long for a socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = path / "receiver.sock"
        self.log = path / "receiver.log"
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET_PATH:
            raise Unreachable(f"the run directory {path} has too long a path for a socket: name a shorter one")
        try:
            with contextlib.suppress(FileExistsError):
                path.mkdir(0o700)
            found = path.lstat()
        except OSError as error:
            raise Unreachable(f"cannot make the run directory {path}: {error.strerror}") from None
        if not stat.S_ISDIR(found.st_mode):
            raise AccessDenied(f"the run directory {path} is not a directory: remove it or name another in the URL")
        if found.st_uid != os.geteuid():
            raise AccessDenied(f"the run directory {path} belongs to user {found.st_uid}: name another in the URL")
        if found.st_mode & 0o077:
            raise AccessDenied(f"the run directory {path} is open to other users: run chmod 700 {path}")

    @property
    def endpoint(self) -> str:
        return f"ipc://{self.socket}"

    def listening(self) -> bool:
        """Whether a receiver accepts connections now."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            return probe.connect_ex(os.fsencode(self.socket)) in (0, errno.EAGAIN)

    @contextlib.contextmanager
    def lock(self, role: str) -> Iterator[bool]:
        """Try to hold ``<role>.lock`` during the block. Yields whether it is held. The file contains a pid."""
        path = self.path / f"{role}.lock"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Unreachable(f"cannot open {path}: {error.strerror}") from None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            yield True
        finally:
            os.close(handle)

    def holder(self) -> str:
        """The pid of the process that last held the receiver's lock, for messages; "?" when unknown."""
        try:
            return (self.path / "receiver.lock").read_text("ascii").strip() or "?"
        except (OSError, ValueError):
            return "?"

    async def start(self, arguments: Sequence[str]) -> None:
        """Start a receiver unless another process is starting one. Returns when a receiver may be listening.

        Raises Unreachable with the error text of the receiver when it cannot start.
        """
        with self.lock("start") as ours:
            if not ours:
                await asyncio.sleep(0.02)
            elif not self.listening():
                answer = await _answer_of(*_spawn(self, arguments))
                if answer != _READY:
                    raise Unreachable(f"the receiver did not start: {answer or 'see ' + str(self.log)}")


def _spawn(run: RunDir, arguments: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Run a detached receiver. Returns the process that detaches it and the pipe on which the receiver answers."""
    read, write = os.pipe()
    command = [sys.executable, "-P", "-m", "rpclib_zmq.receiver", "--run-dir", str(run.path)]
    try:
        child = subprocess.Popen(
            [*command, "--detach", "--ready-fd", str(write), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            pass_fds=(write,),
            start_new_session=True,
        )
    except OSError as error:
        os.close(read)
        raise Unreachable(f"the receiver did not start: cannot run {sys.executable}: {error.strerror}") from None
    finally:
        os.close(write)
    return child, read


async def _answer_of(child: subprocess.Popen[bytes], pipe: int) -> str:
    """The report of a new receiver: ready, or an error text."""
    try:
        return (await _read_all(pipe)).decode(errors="replace").strip()
    finally:
        os.close(pipe)
        child.wait()  # the child exits after detaching the receiver


async def _read_all(handle: int) -> bytes:
    """Everything up to the end of the file, without blocking the loop."""
    loop = asyncio.get_running_loop()
    os.set_blocking(handle, False)
    parts: list[bytes] = []
    while True:
        readable = loop.create_future()
        loop.add_reader(handle, _wake, readable)
        try:
            await readable
        finally:
            loop.remove_reader(handle)
        part = os.read(handle, 4096)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
