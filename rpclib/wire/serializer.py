"""The one serializer: msgpack with a fixed set of types that come back equal on every driver.

None, bool, int (64 bit), float, str, bytes, list, tuple (comes back as list), dict with str or int keys, aware
datetime, date, timedelta, UUID, Decimal, and set or frozenset of scalars (comes back as set). Anything else is
a SerializationError at the sender. The wire form of each is in docs/reference/envelope.md.
"""

from __future__ import annotations

import datetime as dt
import decimal
import struct
import threading
import uuid
from typing import Any

import msgpack

from rpclib.errors import SerializationError

MAX_DEPTH = 64
MAX_ELEMENTS = 1 << 20

EXT_DATETIME = 1
EXT_DATE = 2
EXT_TIMEDELTA = 3
EXT_UUID = 4
EXT_DECIMAL = 5
EXT_SET = 6

_AS_DATETIME = 3
"""What msgpack makes of its own timestamp type, which other languages' libraries like to send."""

SCALARS = frozenset({type(None), bool, int, float, str, bytes})
"""Types that need no `check`."""
_EXT_SCALARS = (dt.date, dt.timedelta, uuid.UUID, decimal.Decimal)  # datetime is a date
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LOCAL_EPOCH = dt.datetime(1970, 1, 1)
_DATETIME = struct.Struct(">qi")  # microseconds since the epoch, offset from UTC in seconds
_DATE = struct.Struct(">i")  # proleptic ordinal
_TIMEDELTA = struct.Struct(">iii")  # days, seconds, microseconds, as normalised by Python
_MICROSECOND = dt.timedelta(microseconds=1)
_SECOND = dt.timedelta(seconds=1)
_unpack = msgpack.unpackb


def pack(value: Any) -> bytes:
    """The bytes of ``value``. Raises SerializationError for a type, depth or size that does not round-trip.

    It does not look into containers: `check` does, on the values a program passed in.
    """
    packer = _thread.packer
    try:
        return packer.pack(value)  # type: ignore[no-any-return]
    except SerializationError:
        packer.reset()
        raise
    except UnicodeEncodeError as error:
        packer.reset()
        raise SerializationError(f"a str is not valid Unicode: {error.reason}") from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        packer.reset()
        raise SerializationError(f"cannot serialise: {error}") from None


def unpack(body: bytes) -> Any:
    """The value of ``body``. Raises ValueError for anything malformed, and nothing else."""
    try:
        if len(body) <= MAX_ELEMENTS:  # no container can claim to hold more than there are bytes
            return _unpack(body, ext_hook=_decode_ext, strict_map_key=False, timestamp=_AS_DATETIME)
        return _unpack(
            body,
            ext_hook=_decode_ext,
            strict_map_key=False,
            timestamp=_AS_DATETIME,
            max_array_len=MAX_ELEMENTS,
            max_map_len=MAX_ELEMENTS,
        )
    except Exception as error:
        # The C decoder raises whatever it meets: UnicodeDecodeError, TypeError for an unhashable key, ...
        raise ValueError(str(error) or type(error).__name__) from None


def check(values: dict[str, Any], what: str = "argument") -> None:
    """Raise SerializationError, naming the path, unless every value round-trips. Cheap for scalars."""
    for name, value in values.items():
        if type(value) not in SCALARS:
            _check(value, (what, " ", name), 1)


def check_value(value: Any, *what: str) -> None:
    """The same for one value, which errors call ``what``."""
    if type(value) not in SCALARS:
        _check(value, what, 1)


def _check(value: Any, path: tuple[Any, ...], depth: int) -> None:
    """``path`` leads to the value, for errors only: parts of text, then keys and indexes."""
    if isinstance(value, dict):
        _check_size(value, path, depth)
        for key, item in value.items():
            if type(key) is not str and (not isinstance(key, (str, int)) or isinstance(key, bool)):
                raise SerializationError(f"{_text(path)} has a key {key!r}: keys must be str or int")
            if type(item) not in SCALARS:
                _check(item, (*path, [key]), depth + 1)
    elif isinstance(value, (list, tuple)):
        _check_size(value, path, depth)
        for index, item in enumerate(value):
            if type(item) not in SCALARS:
                _check(item, (*path, [index]), depth + 1)
    elif isinstance(value, (set, frozenset)):
        _check_size(value, path, depth)
        for item in value:
            if type(item) not in SCALARS and not isinstance(item, _EXT_SCALARS):
                raise SerializationError(f"{_text(path)} is a set holding {_name(item)}; sets hold scalars only")
            _check(item, path, depth + 1)
    elif isinstance(value, dt.datetime):
        if value.utcoffset() is None:
            raise SerializationError(f"{_text(path)} is a datetime without a time zone: add tzinfo")
    elif not isinstance(value, (bool, int, float, str, bytes, type(None), *_EXT_SCALARS)):
        raise SerializationError(
            f"{_text(path)} is {_name(value)}, which does not travel; send None, bool, int, float, str, bytes, "
            "list, dict, set, datetime, date, timedelta, UUID or Decimal"
        )


def _text(path: tuple[Any, ...]) -> str:
    return "".join(f"[{part[0]!r}]" if isinstance(part, list) else part for part in path)


def _check_size(value: Any, path: tuple[Any, ...], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise SerializationError(f"{_text(path)[:80]}... is nested deeper than {MAX_DEPTH} levels")
    if len(value) > MAX_ELEMENTS:
        raise SerializationError(f"{_text(path)} has {len(value)} elements; at most {MAX_ELEMENTS} are allowed")


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _encode_ext(value: Any) -> msgpack.ExtType:
    if isinstance(value, dt.datetime):
        offset = value.utcoffset()
        if offset is None:
            raise SerializationError("a datetime has no time zone: add tzinfo")
        if offset.microseconds:
            raise SerializationError(f"a datetime's offset from UTC is {offset}, not a whole number of seconds")
        since = (value - _EPOCH) // _MICROSECOND
        return msgpack.ExtType(EXT_DATETIME, _DATETIME.pack(since, offset // _SECOND))
    if isinstance(value, dt.date):
        return msgpack.ExtType(EXT_DATE, _DATE.pack(value.toordinal()))
    if isinstance(value, dt.timedelta):
        return msgpack.ExtType(EXT_TIMEDELTA, _TIMEDELTA.pack(value.days, value.seconds, value.microseconds))
    if isinstance(value, uuid.UUID):
        return msgpack.ExtType(EXT_UUID, value.bytes)
    if isinstance(value, decimal.Decimal):
        return msgpack.ExtType(EXT_DECIMAL, str(value).encode())
    if isinstance(value, (set, frozenset)):
        return msgpack.ExtType(EXT_SET, msgpack.packb(list(value), default=_encode_ext))
    if isinstance(value, int):
        raise SerializationError("an int does not fit 64 bits; send it as str or Decimal")
    raise SerializationError(f"{_name(value)} does not travel; see rpclib.wire.serializer for the types that do")


def _decode_scalar(code: int, data: bytes) -> Any:
    if code == EXT_DATETIME:
        since, offset = _DATETIME.unpack(data)
        zone = dt.UTC if offset == 0 else dt.timezone(dt.timedelta(seconds=offset))
        # By way of the local time, which is in range even where the same instant in UTC is not.
        return (_LOCAL_EPOCH + dt.timedelta(seconds=offset, microseconds=since)).replace(tzinfo=zone)
    if code == EXT_DATE:
        return dt.date.fromordinal(_DATE.unpack(data)[0])
    if code == EXT_TIMEDELTA:
        days, seconds, microseconds = _TIMEDELTA.unpack(data)
        return dt.timedelta(days, seconds, microseconds)
    if code == EXT_UUID:
        return uuid.UUID(bytes=data)
    if code == EXT_DECIMAL:
        return decimal.Decimal(data.decode("ascii"))
    raise ValueError(f"unknown extension type {code}")


def _decode_ext(code: int, data: bytes) -> Any:
    if code != EXT_SET:
        return _decode_scalar(code, data)
    # Scalars only, decoded without this hook: a set in a set would otherwise recurse once per level.
    elements = min(len(data), MAX_ELEMENTS)
    return set(msgpack.unpackb(data, ext_hook=_decode_scalar, timestamp=_AS_DATETIME, max_array_len=elements))


class _Thread(threading.local):
    """A reused packer is a third faster than a new one, and not safe to share between threads."""

    def __init__(self) -> None:
        self.packer = msgpack.Packer(default=_encode_ext, autoreset=True)


_thread = _Thread()
