"""The documentation is run: its Python blocks, its ``rpclib`` commands and its ``make`` targets.

The blocks of a document run in order in one empty folder, with ``RPCLIB_URL=fake://`` as the configuration.
A block whose first line is a comment with a file name (``# compute.py``) becomes that file. A command must
exit with 0, or with the status that a following ``$ echo $?`` shows. ``rpclib run`` serves until the document
ends and must then stop cleanly.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
FENCE = re.compile(r"^```([\w{}-]*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:rpclib|make) [^`]+)`")
FILE_NAME = re.compile(r"# ([\w.-]+\.\w+)\n")
ASSIGNMENTS = re.compile(r"^(?:[A-Z_]+=\S* )+")
SECONDS = 60


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is where its text starts in the document. ``{toctree}`` is a language too."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    text: str
    status: int = 0

    @property
    def words(self) -> list[str]:
        return shlex.split(ASSIGNMENTS.sub("", self.text), comments=True)


def blocks(text: str) -> list[Block]:
    return [Block(match[1], match[2], text.count("\n", 0, match.start(2)) + 1) for match in FENCE.finditer(text)]


def commands(block: Block) -> list[Command]:
    """The commands of a shell block: lines after ``$ ``, or every line of one without prompts."""
    text = block.text.replace("\\\n", " ")
    lines = text.splitlines()
    prompted = [line for line in lines if line.startswith("$ ")]
    if not prompted:
        return [Command(line) for line in lines if line.strip() and not line.startswith("#")]
    statuses = re.findall(r"^\$ (.*)\n(?:(?!\$ ).*\n)*?\$ echo \$\?\n(\d+)$", text, re.MULTILINE)
    expected = {command: int(status) for command, status in statuses}
    return [Command(line[2:], expected.get(line[2:], 0)) for line in prompted if line != "$ echo $?"]


def environment(folder: Path) -> dict[str, str]:
    """The user's shell: a configuration that names the fake driver, and this Python's programs first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "RPCLIB_URL": "fake://", "COLUMNS": "100"}


def run(arguments: list[str], folder: Path, expected: int = 0) -> str:
    """Run to the end; return the output, or an account of why the exit status is not the expected one."""
    done = subprocess.run(
        arguments, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode == expected:
        return ""
    return f"exit status {done.returncode}, not {expected}\n{done.stdout}{done.stderr}"


@contextmanager
def serving(command: str, folder: Path) -> Iterator[None]:
    """``rpclib run`` from its first line of output until SIGTERM, which it must answer with status 0."""
    process = subprocess.Popen(
        ["sh", "-c", f"exec {command}"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, f"{command}: ended without a word, exit status {process.wait(SECONDS)}"
        yield
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, f"{command}: exit status {process.returncode}\n{first}{rest}"
    finally:
        process.kill()
        process.communicate()


def make_problem(words: list[str]) -> str:
    """Why ``make`` would not know what to do, or nothing. ``-n`` runs nothing."""
    return run(["make", "-C", str(ROOT), "-n", *words[1:]], ROOT)


def help_problem(subcommand: str, folder: Path) -> str:
    """Why ``rpclib SUBCOMMAND`` does not exist, or nothing. For an option, that of rpclib itself."""
    words = [] if subcommand.startswith("-") else [subcommand]
    return run(["rpclib", *words, "--help"], folder)


def run_command(command: Command, folder: Path, stack: ExitStack) -> str:
    match command.words:
        case ["make", *_]:
            return make_problem(command.words)
        case ["rpclib", "run", *rest] if "--help" not in rest:
            stack.enter_context(serving(command.text, folder))
            return ""
        case ["rpclib", *_]:
            return run(["sh", "-c", command.text], folder, command.status)
    return ""


def run_python(block: Block, folder: Path) -> str:
    named = FILE_NAME.match(block.text)
    if named is None:
        return run([sys.executable, "-W", "error", "-c", block.text], folder)
    (folder / named[1]).write_text(block.text)
    if named[1].startswith("test_"):
        return run([sys.executable, "-m", "pytest", "-q", named[1]], folder)
    return run([sys.executable, "-W", "error", named[1]], folder)


def run_block(block: Block, folder: Path, stack: ExitStack) -> str:
    """Run one block; return what is wrong with it, or nothing."""
    match block.language:
        case "python":
            return run_python(block, folder)
        case "console" | "sh" | "bash" | "shell":
            problems = (
                f"$ {each.text}\n{found}" for each in commands(block) if (found := run_command(each, folder, stack))
            )
            return "\n".join(problems)
        case "toml" | "ini":
            if named := FILE_NAME.match(block.text):
                (folder / named[1]).write_text(block.text)
            if block.language == "toml":
                tomllib.loads(block.text)
    return ""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_the_blocks_run(document: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        for block in blocks(document.read_text()):
            problem = run_block(block, tmp_path, stack)
            assert not problem, f"{document.relative_to(ROOT)}:{block.line}: {problem}"


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_commands_named_in_the_text_exist(document: Path, tmp_path: Path) -> None:
    text = FENCE.sub("", document.read_text())
    for named in sorted(set(INLINE.findall(text))):
        program, first, *_ = named.split()
        for choice in first.split("|"):
            problem = make_problem([program, choice]) if program == "make" else help_problem(choice, tmp_path)
            assert not problem, f"{document.relative_to(ROOT)} names `{named}`: {problem}"


def test_a_block_and_its_line_are_found() -> None:
    assert blocks("# T\n\n```python\nimport a\n```\n") == [Block("python", "import a\n", 4)]
    after = blocks("```{toctree} Pages\nb\n```\n```python\nimport a\n```\n")
    assert after == [Block("{toctree}", "b\n", 2), Block("python", "import a\n", 5)]


def test_commands_carry_the_status_they_show() -> None:
    shown = "$ rpclib call a b\nno server\n$ echo $?\n4\n$ rpclib drivers\nfake\n"
    assert commands(Block("console", shown, 1)) == [Command("rpclib call a b", 4), Command("rpclib drivers")]
    assert commands(Block("sh", "# first\nmake demo\n", 1)) == [Command("make demo")]
    assert Command("RPCLIB_URL=fake:// rpclib call a b  # why").words == ["rpclib", "call", "a", "b"]


def test_a_wrong_document_is_noticed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        assert "NameError" in run_block(Block("python", "undefined\n", 1), tmp_path, stack)
        assert "no-such-target" in run_block(Block("console", "$ make no-such-target\n", 1), tmp_path, stack)
        assert run_block(Block("python", "# part.py\nvalue = 1\n", 1), tmp_path, stack) == ""
        assert run_block(Block("python", "import part\nassert part.value\n", 1), tmp_path, stack) == ""
