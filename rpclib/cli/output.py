"""What the commands print: for people, or with ``--json`` for programs.

People get colours on a terminal only (never with NO_COLOR). A program gets one JSON value on stdout, also when
the command fails: ``{"error": {"code": ..., "message": ...}}``.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import re
import sys
from typing import TYPE_CHECKING, Any

from rpclib.errors import (
    CallTimeout,
    ConfigError,
    MessageTooLarge,
    NoServer,
    RemoteError,
    RpcError,
    TransportError,
    details_of,
)

if TYPE_CHECKING:
    from rich.console import Console

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def console(*, stderr: bool = False) -> Console:
    """A console for this moment's stdout or stderr; it does not wrap lines unless a terminal does."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = 10_000
    return made


def plain(value: Any) -> Any:
    """``value`` as JSON has it.

    datetime and date: ISO 8601. timedelta: seconds. bytes: base64. UUID, Decimal: text. set: a sorted list.
    Keys: text. NaN and infinities: the texts "NaN", "Infinity", "-Infinity".
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=lambda item: (str(type(item)), str(item)))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dt.date):  # datetime is one
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    return str(value)


def print_json(value: Any) -> None:
    """One line of strict JSON on stdout."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False, allow_nan=False) + "\n")


def print_result(value: Any) -> None:
    """A result for people: text as it is, anything else as JSON, laid out and coloured on a terminal."""
    out = console()
    if not out.is_terminal:
        text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
        sys.stdout.write(text + "\n")
    elif isinstance(value, str):
        out.print(printable(value), soft_wrap=True)
    else:
        from rich.highlighter import JSONHighlighter

        text = json.dumps(plain(value), ensure_ascii=False, indent=2)
        out.print(JSONHighlighter()(text), soft_wrap=True)


def printable(text: str) -> str:
    """``text`` without the control characters that could drive a terminal; they show as escapes."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def fail(error: RpcError, *, as_json: bool, traceback: bool) -> int:
    """Print ``error`` and return the exit code it stands for."""
    remote = error.traceback if isinstance(error, RemoteError) else ""
    if as_json:
        found: dict[str, Any] = {"code": error.code, "message": str(error), **details_of(error)}
        if isinstance(error, RemoteError):
            found["type"] = error.type
        if traceback and remote:
            found["traceback"] = remote
        print_json({"error": found})
        return exit_code(error)
    err = console(stderr=True)
    err.print("error:", style="bold red", end=" ")
    err.print(printable(str(error)).replace("\n", "\n       "), soft_wrap=True)
    if remote and traceback:
        err.print(printable(remote.rstrip()), style="dim", soft_wrap=True)
    elif remote:
        err.print("       --traceback shows where in the server", style="dim", soft_wrap=True)
    return exit_code(error)


def exit_code(error: RpcError) -> int:
    """1 remote error, 2 usage or configuration, 3 timeout, 4 no server, 5 connection."""
    if isinstance(error, ConfigError):
        return 2
    if isinstance(error, CallTimeout):
        return 3
    if isinstance(error, NoServer):
        return 4
    if isinstance(error, TransportError) and not isinstance(error, MessageTooLarge):
        return 5
    return 1
