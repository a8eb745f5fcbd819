"""Names of addresses for backends that have a smaller alphabet, or shorter names, than rpclib."""

from __future__ import annotations

import hashlib

from rpclib.address import Address

_HEX = frozenset("0123456789abcdef")
_DIGEST = 20
"""Bytes."""


def address_name(address: Address, alphabet: str, longest: int) -> str:
    """A name for an address, of characters of ``alphabet`` and at most ``longest`` of them. No two addresses have
    the same, and no inbox key leads anywhere but to an inbox.

    ``alphabet`` has the digits and a to f. Its first character that is none of them escapes what the alphabet
    lacks, in hexadecimal, and separates the parts: give first one that names seldom have. A name that would be
    too long begins with a hash of the whole. Raises ValueError for an alphabet or a length that will not do: 42
    at least.
    """
    mark = next((character for character in alphabet if character not in _HEX), None)
    if mark is None or not alphabet or not _HEX.issubset(alphabet) or longest < 2 * _DIGEST + 2:
        raise ValueError("a name needs the hexadecimal digits, another character, and a length of 42")
    parts = (address.kind.value, address.exchange, address.topic, address.key)
    name = (2 * mark).join(_escaped(part, mark, alphabet) for part in parts)
    if len(name) <= longest:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=_DIGEST).hexdigest()
    return f"{2 * mark}{digest}{name}"[:longest]  # no other name begins with the mark twice


def _escaped(part: str, mark: str, alphabet: str) -> str:
    return "".join(
        character
        if character in alphabet and character != mark
        else "".join(f"{mark}{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
        for character in part
    )
