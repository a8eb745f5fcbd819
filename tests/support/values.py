"""Strategies for the values that travel, and for those that nearly do."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

from hypothesis import strategies as st

texts = st.text(st.characters(exclude_categories=["Cs"]))
offsets = st.timedeltas(dt.timedelta(hours=-24, seconds=1), dt.timedelta(hours=24, seconds=-1)).map(
    lambda offset: dt.timezone(dt.timedelta(seconds=round(offset.total_seconds())))
)
ext_scalars = (
    st.datetimes(timezones=offsets | st.just(dt.UTC))
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | texts
    | st.binary()
    | ext_scalars
)
keys = texts | st.integers(-(2**63), 2**64 - 1)
values: st.SearchStrategy[Any] = st.recursive(
    scalars | st.sets(scalars, max_size=5) | st.frozensets(scalars, max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(keys, inner, max_size=5)
    ),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    """Equality that also tells 1 from True and 1.0, and a list from a set, but not a tuple from a list."""
    if isinstance(left, (list, tuple)):
        return type(right) is list and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return (
            isinstance(right, dict) and left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
        )
    if isinstance(left, (set, frozenset)):
        return type(right) is set and left == right
    if isinstance(left, dt.datetime):
        return isinstance(right, dt.datetime) and left == right and left.utcoffset() == right.utcoffset()
    if isinstance(left, float):
        return type(right) is float and left == right and math.copysign(1, left) == math.copysign(1, right)
    return type(left) is type(right) and bool(left == right)
