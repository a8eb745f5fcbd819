"""The wheel holds the whole package and nothing else."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def shipped(package: Path) -> set[str]:
    """Archive names of what a package folder should contribute; folders without Python contribute nothing."""
    files = {path for path in package.rglob("*") if path.suffix in (".py", ".service") or path.name == "py.typed"}
    return {str(path.relative_to(package.parent)) for path in files} if any(package.rglob("*.py")) else set()


@pytest.mark.slow
def test_the_wheel_lists_what_the_tree_lists(wheel: Path) -> None:
    packages = [ROOT / "rpclib", *(ROOT / "drivers").glob("rpclib_*")]
    tree = set().union(*map(shipped, packages))
    built = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert built == tree, f"not in the wheel: {sorted(tree - built)}; only in the wheel: {sorted(built - tree)}"


@pytest.mark.slow
def test_the_wheel_carries_its_licence_and_console_script(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" in name]
        scripts = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert any(name.endswith("LICENSE") for name in names)
    assert "rpclib = rpclib.cli:main" in scripts
