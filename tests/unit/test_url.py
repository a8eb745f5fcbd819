"""URLs: what is read comes back, what is wrong is told, and a password is never shown."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rpclib.errors import ConfigError
from rpclib.url import Host, TransportURL

parse = TransportURL.parse

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ports = st.none() | st.integers(1, 65535)
names = st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True) | st.ip_addresses(v=6).map(str)
urls = st.builds(
    TransportURL,
    scheme=st.from_regex(r"[a-z][a-z0-9+.-]{0,10}", fullmatch=True),
    hosts=st.lists(st.builds(Host, names, ports), max_size=3).map(tuple),
    user=text,
    password=st.none() | text,
    path=st.none() | text,
    query=st.dictionaries(text.filter(bool), text, max_size=3).map(lambda pairs: tuple(pairs.items())),
)


@given(urls)
@example(TransportURL("x", (Host("::1", 5672),), "u", "pä:@/?#[]%& ", "a/b c", (("k", "=&"),)))
@example(TransportURL("x", (), None, None, "", ()))
def test_reveal_and_parse_round_trip(url: TransportURL) -> None:
    assert parse(url.reveal()) == url


@settings(max_examples=50)
@given(urls.filter(lambda url: url.password is not None), st.text("abcdefgh\U0001f40e%@:/ ", min_size=1))
def test_a_password_is_never_shown(url: TransportURL, random: str) -> None:
    password = f"s3cr3t{random}"
    url = TransportURL(url.scheme, url.hosts, url.user, password, url.path, url.query)
    for shown in (str(url), repr(url), f"{url}", url.origin, str([url])):
        assert "s3cr3t" not in shown
    assert "s3cr3t" in url.reveal()


@pytest.mark.parametrize("name", ["password", "ssl_password", "api_token", "SECRET", "passphrase", "keypass"])
def test_secret_options_are_not_shown(name: str) -> None:
    url = parse(f"x://h?a=1&{name}=s3cr3t&b=2")
    assert "s3cr3t" not in str(url) + repr(url)
    assert str(url) == f"x://h?a=1&{name}=***&b=2"
    assert parse(url.reveal()) == url


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("fake://", TransportURL("fake")),
        ("fake:///", TransportURL("fake", path="")),
        ("fake://name", TransportURL("fake", (Host("name"),))),
        ("a://h1:1,h2,[::1]:3", TransportURL("a", (Host("h1", 1), Host("h2"), Host("::1", 3)))),
        ("a://[fe80::1%eth0]", TransportURL("a", (Host("fe80::1%eth0"),))),
        ("a://u@h", TransportURL("a", (Host("h"),), user="u")),
        ("a://u:@h", TransportURL("a", (Host("h"),), user="u", password="")),
        ("a://:p@h", TransportURL("a", (Host("h"),), user="", password="p")),
        ("a://u%40:p%3A%2F@h/%2Fv%C3%A9", TransportURL("a", (Host("h"),), "u@", "p:/", "/vé")),
        ("a://h/ä", TransportURL("a", (Host("h"),), path="ä")),
        ("a://h?x=1&y=&z=%20+", TransportURL("a", (Host("h"),), query=(("x", "1"), ("y", ""), ("z", "  ")))),
        ("a://h?", TransportURL("a", (Host("h"),))),
        ("a://h#", TransportURL("a", (Host("h"),))),
    ],
)
def test_what_is_read(given: str, expected: TransportURL) -> None:
    assert parse(given) == expected


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("", "looks like"),
        ("amqp:/s3cr3t@h", "looks like"),
        ("AMQP://u:s3cr3t@h", "scheme"),
        ("1://u:s3cr3t@h", "scheme"),
        ("://u:s3cr3t@h", "scheme"),
        ("a://u:s3cr3t @h", "space"),
        ("a://u:s3cr3t\n@h", "space"),
        ("a://u:s3cr3t\x7f@h", "space"),
        ("a://u:s3cr3t\udc80@h", "Unicode"),
        ("a://u:s3cr3t#x@h", "%23"),
        ("a://u:s3cr3t@x@h", "%40"),
        ("a://u:12/s3cr3t@h", "%2F"),
        ("a://u:s3cr3t/x@h", "port|%2F"),
        ("a://u:s3cr3t?x@h", "port|options"),
        ("a://u:12?s3cr3t@h", "options"),
        ("a://u:s3cr3t%zz@h", "%25"),
        ("a://u:s3cr3t%@h", "%25"),
        ("a://u:s3cr3t%ff@h", "UTF-8"),
        ("a://u:s3cr3t@h/%ff", "UTF-8"),
        ("a://u:s3cr3t@h?x=%ff", "UTF-8"),
        ("a://u:s3cr3t@h?x=%zz", "%25"),
        ("a://u:s3cr3t@h1,,h2", "empty host"),
        ("a://u:s3cr3t@h1,", "empty host"),
        ("a://u:s3cr3t@:5672", "empty host"),
        ("a://u:s3cr3t@h(x)", "characters"),
        ("a://u:s3cr3t@[::1", "bracket"),
        ("a://u:s3cr3t@[::1]x", "bracket"),
        ("a://u:s3cr3t@[h]:1", "IPv6"),
        ("a://u:s3cr3t@::1", "brackets"),
        ("a://u:s3cr3t@h:", "port"),
        ("a://u:s3cr3t@h:0", "port"),
        ("a://u:s3cr3t@h:65536", "port"),
        ("a://u:s3cr3t@h:000001999999", "port"),
        ("a://u:s3cr3t@h:" + "1" * 5000, "port"),
        ("a://u:s3cr3t@h:\u0661", "port"),
        ("a://u:s3cr3t@h:-1", "port"),
        ("a://u:s3cr3t@h?x", "options"),
        ("a://u:s3cr3t@h?x=1&x=2", "twice"),
        (None, "looks like"),
        (b"a://", "looks like"),
    ],
)
def test_what_is_wrong_is_told_without_the_password(wrong: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        parse(wrong)  # type: ignore[arg-type]
    assert "s3cr3t" not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.text())
def test_any_text_is_a_url_or_a_config_error(wild: str) -> None:
    for candidate in (wild, f"x://{wild}", f"x://u:{wild}@h", f"x://h/{wild}", f"x://h?{wild}"):
        try:
            url = parse(candidate)
        except ConfigError:
            continue
        assert parse(url.reveal()) == url
        str(url)


@given(st.ip_addresses(v=6), ports)
def test_ipv6_hosts(address: ipaddress.IPv6Address, port: int | None) -> None:
    host = Host(str(address), port)
    assert str(host).startswith("[")
    assert parse(f"x://{host}").hosts == (host,)


def test_hosts_can_be_replaced() -> None:
    url = parse("x://u:p@h1,h2/v?a=1")
    assert url.with_hosts(url.hosts[1]).reveal() == "x://u:p@h2/v?a=1"
    assert url.origin == "x://h1,h2"
