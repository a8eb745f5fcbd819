"""What keeps the layers apart and the files small: import rules and size budgets, read from the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "rpclib").rglob("*.py"))
DRIVERS = sorted((ROOT / "drivers").rglob("*.py"))
EVERYTHING = CORE + DRIVERS + sorted((ROOT / "tests").rglob("*.py"))

DRIVER_FACING = {f"rpclib.{name}" for name in ("driver", "driverkit", "errors", "url", "address", "memory")}
SDKS = {"rpclib_amqp": {"pika"}, "rpclib_zmq": {"zmq", "redis", "stevedore"}}
FILE_LINES = 350
FUNCTION_LINES = 40


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import, relative ones resolved; ``from rpclib import driver`` is rpclib.driver."""
    package = path.relative_to(ROOT / "drivers" if path in DRIVERS else ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            if module == "rpclib":
                yield from ((node.lineno, f"rpclib.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def driver_may_import(package: str, module: str) -> bool:
    top = module.partition(".")[0]
    allowed = {package, "pydantic"} | SDKS.get(package, set()) | sys.stdlib_module_names
    return module in DRIVER_FACING or module.startswith("rpclib.driverkit.") or top in allowed


def driver_violations(path: Path) -> list[str]:
    package = path.relative_to(ROOT / "drivers").parts[0]
    return [
        f"{name_of(path)}:{line} imports {module}"
        for line, module in imports(path)
        if not driver_may_import(package, module)
    ]


def test_a_driver_imports_only_what_a_third_party_could() -> None:
    assert DRIVERS
    wrong = [text for path in DRIVERS for text in driver_violations(path)]
    assert not wrong, (
        f"a driver may import the standard library, pydantic, its own package, its own SDK and "
        f"{', '.join(sorted(DRIVER_FACING))}:\n" + "\n".join(wrong)
    )


def test_the_core_knows_no_driver() -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in CORE
        for line, module in imports(path)
        if module.startswith("rpclib_")
    ]
    assert not wrong, "rpclib finds drivers by entry point only:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("package", "module", "allowed"),
    [
        ("rpclib_zmq", "rpclib.driver", True),
        ("rpclib_zmq", "rpclib.driverkit", True),
        ("rpclib_zmq", "rpclib.driverkit.ending", True),
        ("rpclib_zmq", "rpclib.gate", False),
        ("rpclib_zmq", "zmq.asyncio", True),
        ("rpclib_zmq", "asyncio", True),
        ("rpclib_zmq", "rpclib_zmq.frames", True),
        ("rpclib_zmq", "rpclib.transport", False),
        ("rpclib_zmq", "rpclib", False),
        ("rpclib_zmq", "rpclib_fake", False),
        ("rpclib_zmq", "pika", False),
        ("rpclib_zmq", "msgpack", False),
    ],
)
def test_the_import_rule_decides(package: str, module: str, allowed: bool) -> None:
    assert driver_may_import(package, module) is allowed


LAYERS = [
    "errors memory tasks",
    "address url gate wire",
    "driver",
    "driverkit context",
    "config middleware",
    "link",
    "calling serving telemetry",
    "events",
    "transport",
    "sync",
    "operations testing",
    "cli conformance",
]
"""The floors of rpclib from the ground. A file imports from its own folder and from lower floors."""
FLOOR = {name: number for number, names in enumerate(LAYERS) for name in names.split()}
FLOOR["rpclib"] = FLOOR["sync"]
"""``import rpclib`` hands on the public names, those of `rpclib.sync` included."""
LATE = {
    "rpclib/cli/": "a command imports what it needs when it runs, so that --help is fast",
    "rpclib/transport.py": "pydantic takes a tenth of a second to import",
    "rpclib/operations/admin.py": "pydantic takes a tenth of a second to import",
    "rpclib/config/drivers.py": "pydantic is needed only where a driver is at hand, which imports it too",
}
"""Where imports inside functions are, and why."""


def room_of(module: str) -> str:
    """The folder or file directly in rpclib that a module of it belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOOR else "rpclib"


def climbs(path: Path) -> list[str]:
    own = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return [
        f"{name_of(path)}:{line} imports {module}"
        for line, module in imports(path)
        if module.partition(".")[0] == "rpclib" and room_of(module) != own and FLOOR[room_of(module)] >= FLOOR[own]
    ]


def test_imports_go_down() -> None:
    """Imports under TYPE_CHECKING and inside functions count too, so that no circle can come back."""
    folders = {path.relative_to(ROOT / "rpclib").parts[0].removesuffix(".py") for path in CORE} - {"__init__"}
    assert folders <= FLOOR.keys(), f"give it a floor in LAYERS: {folders - FLOOR.keys()}"
    wrong = [text for path in CORE if path != ROOT / "rpclib" / "__init__.py" for text in climbs(path)]
    assert not wrong, "imports go to lower floors only:\n" + "\n".join(wrong)


def test_the_layers_decide(tmp_path: Path) -> None:
    assert room_of("rpclib.link.sender") == "link"
    assert room_of("rpclib") == "rpclib"
    assert FLOOR["link"] < FLOOR["calling"] == FLOOR["serving"] < FLOOR["transport"] < FLOOR["rpclib"]


def test_imports_inside_functions_have_a_reason() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in CORE
        if not name_of(path).startswith(tuple(LATE))
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not wrong, "import at the top, or say in LATE why not:\n" + "\n".join(wrong)


def graph(files: list[Path], root: Path) -> dict[str, set[str]]:
    """Which module imports which, of those in ``files``. ``from package import module`` is the module."""
    names = [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in files]
    edges: dict[str, set[str]] = {}
    for name, path in zip(names, files, strict=True):
        found = {module for _, module in imports(path)}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in names:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                if inner & set(names):
                    found = (found - {node.module}) | inner
        edges[name] = found & set(names) - {name}
    return edges


def circles(edges: dict[str, set[str]]) -> list[str]:
    """The modules that are in circles: nothing is left of a graph without one."""
    left = dict(edges)
    while True:
        imported = set().union(*left.values()) if left else set()
        ends = {name for name, targets in left.items() if not targets & left.keys() or name not in imported}
        if not ends:
            return sorted(left)
        left = {name: targets - ends for name, targets in left.items() if name not in ends}


def test_a_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == ["b", "c"]


@pytest.mark.parametrize("root", [ROOT, ROOT / "drivers"], ids=["rpclib", "drivers"])
def test_no_circle_of_imports(root: Path) -> None:
    """Imports under TYPE_CHECKING and inside functions count. pika's pair of connection and channel is the one
    exception: its connection makes its channels."""
    edges = graph(CORE if root == ROOT else DRIVERS, root)
    edges.get("rpclib_amqp.channel", set()).discard("rpclib_amqp.connection")
    found = circles(edges)
    assert not found, f"these modules import each other: {', '.join(found)}"


def test_files_stay_within_their_budget() -> None:
    sizes = {name_of(path): len(path.read_text().splitlines()) for path in EVERYTHING}
    wrong = [f"{name}: {lines} lines" for name, lines in sizes.items() if lines > FILE_LINES]
    assert not wrong, f"at most {FILE_LINES} lines a file; give each concept its own:\n" + "\n".join(wrong)


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, less the docstring: a contract may be as long as it needs."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        docstring = function.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def test_functions_stay_within_their_budget() -> None:
    wrong = [
        f"{name_of(path)}:{node.lineno} {node.name}: {code_lines(node)} lines"
        for path in CORE + DRIVERS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > FUNCTION_LINES
    ]
    assert not wrong, f"at most {FUNCTION_LINES} lines a function, docstring not counted:\n" + "\n".join(wrong)
