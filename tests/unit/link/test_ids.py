"""Ids of messages: unique, told apart by their transport, and not to be guessed from others."""

from __future__ import annotations

import itertools

from rpclib.link.link import Ids


def test_ids_are_unique_and_know_their_transport() -> None:
    one, other = Ids(), Ids()
    ids = [one.next() for _ in range(5000)]
    assert {len(ident) for ident in ids} == {16}
    assert len(set(ids)) == len(ids)
    assert all(one.mine(ident) and not other.mine(ident) for ident in ids)
    assert not one.mine(other.next())


def test_an_id_says_nothing_about_the_next() -> None:
    """A server that was called once knows one id. Counting on from it must not hit another call."""
    ids = Ids()
    tails = [int.from_bytes(ids.next()[8:]) for _ in range(5000)]
    steps = [later - earlier for earlier, later in itertools.pairwise(tails)]
    assert len(set(steps)) == len(steps)
    assert min(map(abs, steps)) > 2**32
    ones = [sum(tail >> bit & 1 for tail in tails) for bit in range(64)]
    assert all(2000 < count < 3000 for count in ones), "each bit is one in about half of the ids"
