"""Names: what is allowed, what the message says about what is not, and what an address prints as."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpclib.address import (
    EXCHANGE_MAX,
    SERVER_MAX,
    TOPIC_MAX,
    Address,
    Kind,
    Target,
    check_name,
    default_server,
    parse_version,
)
from rpclib.errors import ConfigError

WORD = string.ascii_letters + string.digits + "_-"


@pytest.mark.parametrize(
    ("field", "longest", "extra"),
    [
        ("topic", TOPIC_MAX, ""),
        ("exchange", EXCHANGE_MAX, ""),
        ("server", SERVER_MAX, ".:@"),
        ("namespace", 80, ".:@"),
    ],
)
def test_names_up_to_their_length(field: str, longest: int, extra: str) -> None:
    allowed = WORD + extra
    name = (allowed * 3)[:longest]
    assert getattr(Target(**{field: name}), field) == name
    with pytest.raises(ConfigError, match=f"at most {longest}"):
        Target(**{field: "x" * (longest + 1)})
    with pytest.raises(ConfigError, match="non-empty"):
        Target(**{field: ""})
    with pytest.raises(ConfigError, match="non-empty"):
        Target(**{field: 5})  # type: ignore[arg-type]
    for char in set(string.printable + "é\u0660\0/") - set(allowed):
        with pytest.raises(ConfigError) as caught:
            Target(**{field: f"a{char}b"})
        assert repr(char) in str(caught.value)


def test_no_name_ends_in_a_newline() -> None:
    with pytest.raises(ConfigError):
        check_name("topic", "compute\n", TOPIC_MAX)


def test_addresses_of_a_target() -> None:
    target = Target("compute", server="phantom", exchange="nova")
    assert target.one() == Address(Kind.ONE, "nova", "compute", "phantom")
    assert target.all() == Address(Kind.ALL, "nova", "compute")
    assert Target("compute").one() == Address(Kind.ONE, "rpclib", "compute")
    assert Target("compute").within("nova").one().exchange == "nova"
    assert target.within("other") is target
    for address in (Target().one, Target().all):
        with pytest.raises(ConfigError, match="needs a topic"):
            address()


def test_what_they_print_as() -> None:
    target = Target("compute", server="phantom", exchange="nova")
    assert str(target) == "compute.phantom"
    assert (str(Target("compute")), str(Target())) == ("compute", "?")
    assert str(target.one()) == '"compute.phantom" in exchange "nova"'
    assert str(target.all()) == '"compute" in exchange "nova" (all servers)'
    assert str(Address.inbox("k")) == "inbox k"


@given(st.integers(0, 999_999_999), st.integers(0, 999_999_999))
def test_versions(major: int, minor: int) -> None:
    assert parse_version(f"{major}.{minor}") == (major, minor)
    assert parse_version(str(major)) == (major, 0)


@pytest.mark.parametrize(
    "text", ["", "1.", ".1", "1.2.3", "v1", "1 ", "1.2\n", "-1", "\u0661.\u0662", "1" * 10, None, 1, 1.2]
)
def test_what_is_no_version(text: object) -> None:
    with pytest.raises(ConfigError, match="MAJOR"):
        parse_version(text)  # type: ignore[arg-type]
    if text is not None:
        with pytest.raises(ConfigError, match="MAJOR"):
            Target(version=text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "name"), [("web 1/ä", "web-1--"), ("x" * 200, "x" * SERVER_MAX), ("", "localhost")]
)
def test_a_host_name_becomes_a_server_name(monkeypatch: pytest.MonkeyPatch, host: str, name: str) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert default_server() == name
    Target(server=default_server())
