"""Where configuration comes from, which source wins, and what is said about mistakes."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from pydantic import BaseModel, Field, SecretStr, field_validator

from rpclib.address import Address
from rpclib.config.settings import Settings, describe, resolve, sample
from rpclib.driver import SPI_VERSION, Driver, Observer, Route, Subscription
from rpclib.errors import ConfigError, DriverNotFound, DriverUnavailable
from rpclib.url import TransportURL


class Options(BaseModel):
    heartbeat: int = Field(10, ge=0, description="Seconds between signs of life")
    tls: bool = False
    hosts: list[str] = Field(["a", "b"], examples=[["c"]])
    token: SecretStr | None = None
    old_secret: str = ""
    tls_token_file: Path | None = None

    @field_validator("old_secret")
    @classmethod
    def _short(cls, value: str) -> str:
        if len(value) > 20:
            raise ValueError(f"{value} is too long")
        return value


class Plain(Driver):
    spi_version = SPI_VERSION
    capabilities = frozenset()
    options = Options
    inbox_keys = re.compile("x")

    @classmethod
    async def open(cls, url: TransportURL, options: BaseModel, observer: Observer) -> Self:
        raise NotImplementedError

    def route(self, address: Address, *, must_arrive: bool = False) -> Route:
        raise NotImplementedError

    def send(self, route: Route, body: bytes, ttl: float | None, tag: bytes = b"") -> None: ...
    async def subscribe(self, address: Address, *, prefetch: int, arrived: Callable[[], None]) -> Subscription:
        raise NotImplementedError

    async def subscribers(self, address: Address) -> int | None:
        return None

    async def close(self, *, flush: bool = True) -> None: ...


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and an environment without RPCLIB_ variables."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("RPCLIB_")]:
        monkeypatch.delenv(name)
    return tmp_path


def problems(*args: Any, **keywords: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(*args, **{"driver": Plain, **keywords})
    return str(caught.value).splitlines()


def write(text: str, name: str = "rpclib.toml") -> None:
    Path(name).write_text(text)


def test_defaults() -> None:
    found = resolve("x://", driver=Plain)
    assert found.settings == Settings(url="x://")
    assert found.options == Options()
    assert found.driver is Plain
    assert found.sources == {"url": "the URL"}


def test_a_higher_source_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step adds a source above the ones before."""

    def found(url: str = "x://", **keywords: Any) -> tuple[float, int]:
        resolved = resolve(url, driver=Plain, **keywords)
        options = resolved.options
        assert isinstance(options, Options)
        return resolved.settings.timeout, options.heartbeat

    assert found() == (60.0, 10)
    write("timeout = 1\n[x]\nheartbeat = 1\n")
    assert found() == (1.0, 1)
    monkeypatch.setenv("RPCLIB_TIMEOUT", "2")
    monkeypatch.setenv("RPCLIB_X_HEARTBEAT", "2")
    assert found() == (2.0, 2)
    assert found("x://?timeout=3&heartbeat=3") == (3.0, 3)
    assert found("x://?timeout=3&heartbeat=3", timeout=4, options={"heartbeat": 4}) == (4.0, 4)
    assert found(timeout=None) == (2.0, 2)


def test_the_url_comes_from_a_keyword_the_environment_or_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems() == [
        'no transport URL is configured: pass one, as in connect("fake://"), or set RPCLIB_URL, '
        'or write url = "fake://" to rpclib.toml'
    ]
    write('url = "x://file"')
    assert str(resolve(driver=Plain).url) == "x://file"
    monkeypatch.setenv("RPCLIB_URL", "x://environment")
    assert str(resolve(driver=Plain).url) == "x://environment"
    assert str(resolve("x://argument", driver=Plain).url) == "x://argument"
    assert str(resolve(TransportURL.parse("x://object"), driver=Plain).url) == "x://object"


def test_the_url_loses_its_query_and_keeps_the_rest() -> None:
    url = resolve("x://u:p%40@h1:1,h2/path?timeout=5&tls=yes", driver=Plain).url
    assert url.reveal() == "x://u:p%40@h1:1,h2/path"


def test_an_installed_driver_is_found_by_the_scheme() -> None:
    with pytest.raises(DriverNotFound, match="nosuchscheme"):
        resolve("nosuchscheme://")


def test_empty_variables_set_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPCLIB_TIMEOUT", "")
    monkeypatch.setenv("RPCLIB_URL", "")
    assert resolve("x://", driver=Plain).settings.timeout == 60.0


def test_lists_are_json_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPCLIB_X_HOSTS", '["p", "q"]')
    options = resolve("x://", driver=Plain).options
    assert isinstance(options, Options)
    assert options.hosts == ["p", "q"]
    monkeypatch.setenv("RPCLIB_X_HOSTS", "p,q")
    assert "JSON" in problems("x://")[0]


def test_the_named_file_is_read_and_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    write("timeout = 1")
    write("timeout = 2", "other.toml")
    monkeypatch.setenv("RPCLIB_CONFIG", "other.toml")
    assert resolve("x://", driver=Plain).settings.timeout == 2.0
    monkeypatch.setenv("RPCLIB_CONFIG", "absent.toml")
    assert problems("x://") == ["cannot read absent.toml (named by RPCLIB_CONFIG): No such file or directory"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"timeout = ", "rpclib.toml is not TOML: Invalid value"),
        (b"\xff\xfe", "rpclib.toml is not UTF-8 text"),
    ],
)
def test_an_unreadable_file_is_an_error(content: bytes, expected: str) -> None:
    Path("rpclib.toml").write_bytes(content)
    assert problems("x://")[0].startswith(expected)


def test_every_unknown_name_is_told_with_its_place_and_the_near_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    write("timout = 1\n[x]\nheartbeet = 1\n[y]\n[z]\n")
    monkeypatch.setattr("rpclib.config.drivers.schemes", lambda: ["other", "y"])
    monkeypatch.setenv("RPCLIB_TIMOUT", "1")
    monkeypatch.setenv("RPCLIB_X_HEARTBEET", "1")
    monkeypatch.setenv("RPCLIB_OTHER_THING", "another driver's business")
    monkeypatch.setenv("RPCLIB_TEST_SOMETHING", "reserved")
    assert problems("x://?graze=1&password=s3cret", timeou=1, options={"tsl": True}) == [
        "timout in rpclib.toml: unknown; did you mean timeout?",
        "heartbeet in [x] of rpclib.toml: unknown; did you mean heartbeat?",
        "[z] in rpclib.toml: unknown; known: other, x, y",
        "RPCLIB_TIMOUT: unknown; did you mean RPCLIB_TIMEOUT?",
        "RPCLIB_X_HEARTBEET: unknown; did you mean RPCLIB_X_HEARTBEAT?",
        "graze in the URL: unknown; did you mean grace?",
        "password in the URL: unknown; did you mean password_file?",
        "keyword timeou: unknown; did you mean timeout?",
        "options['tsl']: unknown; did you mean tls?",
    ]


def test_every_wrong_value_is_told_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    write("workers = 0\ngrace = nan\n[x]\ntls = 7\n")
    monkeypatch.setenv("RPCLIB_TIMEOUT", "soon")
    assert problems("x://?heartbeat=-1", exchange="a b") == [
        "keyword exchange: exchange 'a b' contains ' '; allowed are letters, digits, _ and -",
        "RPCLIB_TIMEOUT: should be a valid number, unable to parse string as a number, not 'soon'",
        "workers in rpclib.toml: should be greater than or equal to 1, not 0",
        "grace in rpclib.toml: should be a finite number, not nan",
        "heartbeat in the URL: should be greater than or equal to 0, not '-1'",
        "tls in [x] of rpclib.toml: should be a valid boolean, unable to interpret input, not 7",
    ]


@pytest.mark.parametrize("source", ["argument", "RPCLIB_URL", "file"])
def test_a_malformed_url_names_its_source_and_not_the_password(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "x://user:hunter2@host:port"
    if source == "file":
        write(f'url = "{url}"')
    elif source == "RPCLIB_URL":
        monkeypatch.setenv("RPCLIB_URL", url)
    text = problems(url if source == "argument" else None)[0]
    assert "hunter2" not in text
    assert text.startswith({"argument": "the x URL", "RPCLIB_URL": "RPCLIB_URL: ", "file": "the url in "}[source])


def test_secrets_are_in_no_error_and_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hunter2-" * 4
    monkeypatch.setenv("RPCLIB_X_OLD_SECRET", secret)
    assert problems("x://", options={"token": [secret]}, password=[secret]) == [
        "keyword password: should be a valid string",
        "options['token']: should be a valid string",
        "RPCLIB_X_OLD_SECRET: not valid",
    ]
    monkeypatch.delenv("RPCLIB_X_OLD_SECRET")
    found = resolve(f"x://u:{secret}@h", driver=Plain, options={"token": secret, "old_secret": "hunter2"})
    assert "hunter2" not in repr(found)
    assert "hunter2" not in str(describe(found))
    assert found.url.password == secret


def test_the_password_of_the_highest_source_wins(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    def password(url: str, **keywords: Any) -> str | None:
        return resolve(url, driver=Plain, **keywords).url.password

    for name in "123":
        write(f"from-file-{name}\n", f"secret-{name}")
    assert password("x://u@h") is None
    write('password_file = "secret-1"')
    assert password("x://u@h") == "from-file-1"
    monkeypatch.setenv("RPCLIB_PASSWORD", "from-environment")
    assert password("x://u@h") == "from-environment"
    assert password("x://u@h?password_file=secret-2") == "from-file-2"
    assert password("x://u:from-url@h") == "from-url"
    assert password("x://u:from-url@h", password_file=place / "secret-3") == "from-file-3"
    assert password("x://u:from-url@h", password="from-keyword") == "from-keyword"


@pytest.mark.parametrize(
    ("content", "password"),
    [(b"a\n", "a"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b" a ", " a "), (b"", "")],
)
def test_one_newline_is_stripped_from_a_password_file(content: bytes, password: str) -> None:
    Path("secret").write_bytes(content)
    assert resolve("x://u@h", driver=Plain, password_file="secret").url.password == password


def test_two_passwords_in_one_source_and_an_unreadable_file_are_errors() -> None:
    assert problems("x://u:p@h?password_file=f") == [
        "the URL and password_file in the URL both give a password: keep one"
    ]
    assert problems("x://u@h?password_file=f") == [
        "password_file in the URL: cannot read f: No such file or directory"
    ]


def test_an_option_named_like_a_setting_is_the_drivers_fault() -> None:
    class Clashing(Options):
        timeout: float = 1.0

    class Clash(Plain):
        options = Clashing

    with pytest.raises(DriverUnavailable, match="calls an option timeout"):
        resolve("x://", driver=Clash)


def test_describe_shows_values_sources_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RPCLIB_X_HEARTBEAT", "5")
    monkeypatch.setenv("RPCLIB_PASSWORD_FILE", "p")
    write("s3cret", "p")
    rows = {name: (value, source) for name, value, source in describe(resolve("x://u@h?grace=1", driver=Plain))}
    assert rows["url"] == ("x://u@h?grace=1", "the URL")
    assert rows["grace"] == (1.0, "grace in the URL")
    assert rows["timeout"] == (60.0, "default")
    assert rows["password_file"] == ("p", "RPCLIB_PASSWORD_FILE")
    assert rows["x.heartbeat"] == (5, "RPCLIB_X_HEARTBEAT")
    assert rows["x.hosts"] == (["a", "b"], "default")
    assert rows.keys() == Settings.model_fields.keys() | {f"x.{name}" for name in Options.model_fields}


def test_the_sample_without_its_comment_signs_means_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rpclib.config.drivers.load", lambda scheme: Plain)
    text = sample(["x"])
    assert tomllib.loads(text) == {"x": {}}
    optional = r"^#(password|password_file|token|tls_token_file) = .*$"
    live = re.sub(r"^#(?=\w)", "", re.sub(optional, "", text, flags=re.M), flags=re.M)
    write(live)
    found = resolve("x://", driver=Plain)
    assert found.settings == Settings(url="x://")
    assert found.options == Options()
    for name in (*Settings.model_fields, *Options.model_fields):
        assert re.search(rf"^#{name} = ", text, re.M)
    for info in Settings.model_fields.values():
        assert f"# {info.description}" in text


def test_the_documentation_has_every_setting_with_its_default_and_meaning() -> None:
    documentation = (Path(__file__).parents[3] / "docs" / "reference" / "configuration.md").read_text()
    rows = [line for line in documentation.splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{name}` |{'' if info.default is None else f' {info.default}'} | {info.description} |"
        for name, info in Settings.model_fields.items()
    ]
