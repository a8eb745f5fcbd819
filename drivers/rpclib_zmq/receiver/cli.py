"""The command line of ``rpclib-zmq-receiver``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zmq
from pydantic import ValidationError

from rpclib.errors import ConfigError, RpcError, Unreachable
from rpclib_zmq.options import NetworkOptions
from rpclib_zmq.protocol import header
from rpclib_zmq.protocol.header import Header, read_json
from rpclib_zmq.receiver.network import keys
from rpclib_zmq.receiver.receiver import Receiver
from rpclib_zmq.rundir import RunDir, default_path

log = logging.getLogger("rpclib_zmq")

EX_OK, EX_UNAVAILABLE, EX_TEMPFAIL, EX_CONFIG = 0, 69, 75, 78
_TAKE_OVER = 3.0
"""Seconds to wait for a receiver that is about to leave."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    if getattr(options, "detach", False) and os.fork():
        os._exit(EX_OK)
    report = _reporter(options.ready_fd) if options.command is None else _complain
    try:
        if options.command == "keygen":
            print(keys.generate(options.file))
            return EX_OK
        run = RunDir(options.run_dir)
        if options.command == "status":
            return _status(run, options.json)
        if options.command == "stop":
            return _stop(run)
        return _serve(run, options, report)
    except RpcError as error:
        report(str(error))
        return EX_UNAVAILABLE if isinstance(error, Unreachable) else EX_CONFIG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rpclib-zmq-receiver",
        description="Hands rpclib messages to the processes of this machine. Runs until stopped.",
    )
    parser.add_argument(
        "--run-dir", type=Path, default=default_path(), metavar="DIR", help="run directory (default: %(default)s)"
    )
    parser.add_argument(
        "--idle-exit", type=float, metavar="SECONDS", help="leave after that long without a session"
    )
    parser.add_argument(
        "--grace", type=float, default=10.0, metavar="SECONDS", help="when stopped, wait that long for what runs"
    )
    for name, field in NetworkOptions.model_fields.items():
        flag: dict[str, Any] = {"action": "store_true"} if name == "insecure" else {"metavar": name.upper()}
        parser.add_argument("--" + name.replace("_", "-"), help=field.description, default=None, **flag)
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with these options")
    parser.add_argument("--detach", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    status = commands.add_parser("status", help="show what the receiver does")
    status.add_argument("--json", action="store_true", help="as JSON")
    keygen = commands.add_parser("keygen", help="write a new secret key to FILE and print the public key")
    keygen.add_argument("file", type=Path, metavar="FILE")
    commands.add_parser("stop", help="ask the receiver to finish and leave")
    return parser


def _complain(text: str) -> None:
    print(f"rpclib-zmq-receiver: {text}", file=sys.stderr)


def _reporter(ready_fd: int | None) -> Callable[[str], None]:
    """The function that reports readiness or a failure to the process that started the receiver."""
    if ready_fd is None:
        return _complain

    def report(text: str) -> None:
        try:
            os.write(ready_fd, text.encode())
            os.close(ready_fd)
        except OSError:
            return  # the starting process is gone, or already has a report

    return report


def _network(options: argparse.Namespace) -> NetworkOptions:
    """Options about other machines. The command line overrides the file."""
    given: dict[str, Any] = {}
    if options.config is not None:
        try:
            given = tomllib.loads(options.config.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{options.config}: {error}") from None
    given |= {name: value for name in NetworkOptions.model_fields if (value := getattr(options, name)) is not None}
    try:
        return NetworkOptions.model_validate(given)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _serve(run: RunDir, options: argparse.Namespace, report: Callable[[str], None]) -> int:
    where: Any = {"filename": run.log, "filemode": "w"} if options.detach else {"stream": sys.stderr}
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", **where)
    network = _network(options)
    until = time.monotonic() + _TAKE_OVER
    while True:
        with run.lock("receiver") as ours:
            if ours:
                receiver = Receiver(run, network, idle_exit=options.idle_exit, grace=options.grace)
                ready = (lambda: report("ready")) if options.ready_fd is not None else (lambda: None)
                try:
                    receiver.run(ready)
                except (OSError, zmq.ZMQError) as error:
                    report(f"cannot serve {run.path}: {error.strerror}")
                    return EX_UNAVAILABLE
                return EX_OK
        if time.monotonic() >= until:
            report(f"another receiver (pid {run.holder()}) serves {run.path}")
            return EX_TEMPFAIL
        time.sleep(0.05)


def _status(run: RunDir, as_json: bool) -> int:
    status = ask(run, header.STATUS)
    if status is None:
        print("{}" if as_json else f"no receiver serves {run.path}")
        return EX_UNAVAILABLE
    if as_json:
        print(json.dumps(status, indent=2))
        return EX_OK
    lines = [f"receiver {status['node']}, pid {status['pid']}, rpclib {status['version']}, in {run.path}"]
    lines += [f"{one['number']:>6}  pid {one['pid']}  {one['program']}" for one in status["sessions"]]
    lines += [
        f"{name}: {destination['takers']} subscribed, {destination['waiting']} waiting"
        for name, destination in sorted(status["places"].items())
    ]
    lines += [f"link to receiver {link['node']}: {link['names']} names" for link in status.get("links", ())]
    lines += [f"peer {address}: {state}" for address, state in status.get("dials", {}).items()]
    print("\n".join(lines))
    return EX_OK


def _stop(run: RunDir) -> int:
    answer = ask(run, header.QUIT)
    if answer is None:
        print(f"no receiver serves {run.path}")
        return EX_OK
    pid = str(answer["pid"])
    while run.listening() and run.holder() == pid:  # a client may start the next one at once
        time.sleep(0.05)
    print(f"receiver (pid {answer['pid']}) stopped")
    return EX_OK


def ask(run: RunDir, kind: int, seconds: float = 5.0) -> dict[str, Any] | None:
    """Send the receiver a query. None when no receiver runs. Raises Unreachable when it does not answer."""
    if not run.listening():
        return None
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    try:
        socket.connect(run.endpoint)
        socket.send_multipart([Header(kind).encode(), b""])
        if not socket.poll(int(seconds * 1000)):
            raise Unreachable(f"the receiver (pid {run.holder()}) in {run.path} does not answer")
        return read_json(socket.recv_multipart()[-1])
    finally:
        context.destroy(linger=0)
