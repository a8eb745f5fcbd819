"""The envelope: one versioned msgpack array, the same bytes on every driver.

Specified in docs/reference/envelope.md. Fields that a later version appends are ignored by this one; a version it
does not know is BadEnvelope.
"""

from __future__ import annotations

from rpclib.errors import BadEnvelope
from rpclib.wire import answer, request, serializer
from rpclib.wire.answer import Failure, Result
from rpclib.wire.control import Alive
from rpclib.wire.kinds import ALIVE, CALL, CAST, ERROR, ID_LENGTH, RESULT, VERSION
from rpclib.wire.request import Request

_REQUESTS = (CALL, CAST)


def decode(body: bytes) -> Request | Result | Failure | Alive:
    """Read any envelope. Raises BadEnvelope, and nothing else, for bytes that are none of this version."""
    try:
        fields = serializer.unpack(body)
    except ValueError as error:
        raise BadEnvelope(f"not an envelope: {error}") from None
    if type(fields) is not list or len(fields) < 3:
        raise BadEnvelope("not an envelope: no array of at least three fields")
    version, kind, ident = fields[0], fields[1], fields[2]
    if type(version) is not int or type(kind) is not int:
        raise BadEnvelope("not an envelope: its version and kind are no numbers")
    if version != VERSION:
        raise BadEnvelope(f"envelope version {version} is unknown here; this side speaks {VERSION}")
    if type(ident) is not bytes or len(ident) != ID_LENGTH:
        raise BadEnvelope(f"the id of an envelope is {ID_LENGTH} bytes")
    if kind == RESULT:
        if len(fields) >= answer.RESULT_FIELDS:
            return Result(ident, fields[3])
    elif kind in _REQUESTS:
        if len(fields) >= request.FIELDS:
            return Request(fields)
    elif kind == ERROR:
        if len(fields) >= answer.ERROR_FIELDS:
            return answer.read_failure(fields)
    elif kind == ALIVE:
        return Alive(ident)
    raise BadEnvelope(f"envelope kind {kind} with {len(fields)} fields is unknown here")
