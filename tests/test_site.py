"""The documentation as a whole: every path it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_docs import DOCUMENTS, FENCE, NAMES, ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
EXTERNAL = re.compile(r"[a-z]+:")
DOCS_PATH = re.compile(r"\bdocs/[\w./-]+\.(?:md|png)\b")
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
