"""The documentation as a whole: every path it names exists, and the site is built without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import rpclib
from tests.test_docs import DOCUMENTS, FENCE, NAMES, ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
EXTERNAL = re.compile(r"[a-z]+:")
DOCS_PATH = re.compile(r"\bdocs/[\w./-]+\.(?:md|png)\b")
LOADED = re.compile(
    r"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)="(?:https?:)?//[^>]*>|url\(["']?(?:https?:)?//"""
)
FOLDERS = ("benchmarks", "docs", "drivers", "examples", "rpclib", "tests")
SUFFIXES = {".md", ".py", ".toml"}


def broken_links(document: Path) -> list[str]:
    text = FENCE.sub("", document.read_text())
    links = [link for link in LINK.findall(text) if not EXTERNAL.match(link) and not link.startswith("#")]
    return [link for link in links if not (document.parent / link.partition("#")[0]).is_file()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_relative_link_leads_to_a_file(document: Path) -> None:
    assert not broken_links(document)


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "there.md").touch()
    document = tmp_path / "page.md"
    document.write_text(
        "[a](there.md), [b](there.md#b), [c](#c), [d](https://x.test/d.md), [e](gone.md), ![f](gone.png)"
    )
    assert broken_links(document) == ["gone.md", "gone.png"]


def test_every_page_named_in_the_sources_exists() -> None:
    inside = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    wrong = [
        f"{path.relative_to(ROOT)} names {named}"
        for path in [*ROOT.glob("*.md"), *ROOT.glob("*.cfg"), *inside]
        for named in DOCS_PATH.findall(path.read_text())
        if not (ROOT / named).is_file()
    ]
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. The modules it describes are those that are installed."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--fail-on-warning", "--keep-going", "--quiet", "--doctree-dir", str(folder / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(folder / "html")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_site_has_every_page(site: Path) -> None:
    pages = [
        path.relative_to(ROOT / "docs").with_suffix(".html") for path in DOCUMENTS if ROOT / "docs" in path.parents
    ]
    assert len(pages) > 10
    assert not [page for page in pages if not (site / page).is_file()]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_site_describes_every_public_name(site: Path) -> None:
    text = "".join((site / "reference" / name).read_text() for name in ("api.html", "driver.html"))
    described = set(re.findall(r'id="(?:module-)?rpclib\.(?:driver\.|errors\.)?(\w+)"', text))
    assert set(rpclib.__all__) <= described, set(rpclib.__all__) - described


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.suffix in {".html", ".css"}]
    wrong = [f"{path.relative_to(site)}: {found}" for path in files for found in LOADED.findall(path.read_text())]
    assert not wrong, "\n".join(wrong)


def test_what_loads_from_elsewhere_is_noticed() -> None:
    assert LOADED.search('<link rel="stylesheet" href="https://fonts.test/a.css">')
    assert LOADED.search("@font-face { src: url('//fonts.test/a.woff') }")
    assert not LOADED.search('<a href="https://x.test">, <script src="_static/furo.js">, url(a.svg)')
