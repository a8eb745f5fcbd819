"""CURVE keys: a receiver's own secret, and the keys it accepts.

The known-hosts file has a line for each other receiver: ``host:port key``, or ``- key`` for a receiver that only
connects to this one. The file is the allow-list, and pins the key expected at each address.
"""

from __future__ import annotations

import os
from pathlib import Path

import zmq

from rpclib.errors import ConfigError

_KEY_LENGTH = 40


class Keys:
    """The secret key of this receiver and the public keys it knows. Read once; `reload` reads them again.

    Raises ConfigError, which never quotes a key, for files that are missing, malformed or, in the case of the
    secret, open to others.
    """

    def __init__(self, secret: Path, known: Path) -> None:
        self._known_path = known
        self.secret = _read(secret, private=True).strip()
        if len(self.secret) != _KEY_LENGTH:
            raise ConfigError(f"{secret} holds no secret key: make one with rpclib-zmq-receiver keygen")
        self.public = zmq.curve_public(self.secret.encode()).decode()
        self.by_address: dict[str, str] = {}
        self.accepted: set[str] = set()
        self.reload()

    def reload(self) -> None:
        """Read the known hosts again. After an error the previous ones stay in force."""
        by_address, accepted = {}, set()
        for number, line in enumerate(_read(self._known_path).splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or len(words[1]) != _KEY_LENGTH:
                raise ConfigError(f'{self._known_path}, line {number}: expected "host:port key" or "- key"')
            accepted.add(words[1])
            if words[0] != "-":
                by_address[words[0]] = words[1]
        self.by_address, self.accepted = by_address, accepted


def generate(path: Path) -> str:
    """Write a new secret key to ``path``, readable by its owner only, and return the public key.

    Raises ConfigError when the file exists: keys are replaced by hand.
    """
    public, secret = zmq.curve_keypair()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
    with os.fdopen(handle, "wb") as file:
        file.write(secret + b"\n")
    return public.decode()


def _read(path: Path, *, private: bool = False) -> str:
    try:
        if private and path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} is open to other users: run chmod 600 {path}")
        return path.read_text("ascii")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not an ASCII text file") from None
