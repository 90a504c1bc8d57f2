"""Tables of stored results in documents: put there by `--write`, checked by a test.

A block in a document names the table and the file that it was made from:

    <!-- benchmarks.trial_speed:seconds benchmarks/results/trial_speed/2026-11-25-d58cb20.json -->
    | candidate | ...

    `python -m benchmarks.trial_speed --rounds 3`, 2026-11-25, commit d58cb20, ...
    <!-- / -->

Several commands or commits of one result, or a long command, are folded below the line.

`none` in place of the file is a block that waits for its first result. `python -m benchmarks._docs`
renders the blocks of all documents anew from the files that they name.
"""

from __future__ import annotations

import html
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks import _stored
from benchmarks._stored import ROOT, Stored
from compress.core.atomic_files import write_text
from compress.core.errors import InputError

NONE = "none"
MAX_COMMAND = 100
"""Number of characters of a command that is shown; a longer one is folded."""
_BLOCK = re.compile(
    r"^<!-- benchmarks\.(?P<name>\w+):(?P<table>\w+) (?P<file>\S+) -->\n(?P<body>.*?)^<!-- / -->$",
    re.MULTILINE | re.DOTALL,
)


class Renders(Protocol):
    """What a block needs to know of a benchmark."""

    @property
    def name(self) -> str: ...

    @property
    def tables(self) -> Mapping[str, Callable[[dict[str, Any]], str | None]]: ...


@dataclass(frozen=True)
class Block:
    """One block of a document.

    Attributes:
        benchmark, table: What it shows.
        file: Relative to the repository, or `NONE`.
        body: The lines between the markers.
    """

    benchmark: str
    table: str
    file: str
    body: str


def blocks(text: str) -> list[Block]:
    """Return the blocks of a document in their order."""
    return [
        Block(found["name"], found["table"], found["file"], found["body"])
        for found in _BLOCK.finditer(text)
    ]


def body(benchmark: Renders, name: str, stored: Stored | None) -> str:
    """Return the lines of a block: the table, and its origin below it."""
    if stored is None:
        return f"Not measured yet: `python -m benchmarks.{benchmark.name}`.\n"
    table = benchmark.tables[name](stored.result)
    seeds = _told_seeds(stored.provenance["seeds"])
    commands = stored.commands
    is_short = len(commands) == 1 and len(commands[0]) <= MAX_COMMAND
    shown = commands[0] if is_short else f"python -m benchmarks.{benchmark.name}"
    if is_short and len(stored.commits) == 1:
        return f"{table}\n\n`{shown}`, {stored.origin()}; {seeds}.\n"
    date = stored.provenance["date"][:10]
    source = f"`{shown}`, {date}, {stored.describe_machines()}; {seeds}."
    typed = ", then ".join(
        f"<code>{html.escape(command, quote=False)}</code>" for command in commands
    )
    folded = f"<details><summary>Commands and commits</summary>{typed}; {stored.describe_commits()}"
    return f"{table}\n\n{source}\n\n{folded}.</details>\n"


def write(document: Path, benchmark: Renders, stored: Stored) -> None:
    """Put a stored result into a document's blocks of its benchmark.

    Raises:
        InputError: The document has no such block, the result is not complete or lies
            elsewhere, or it lacks a peer's row that the document shows.
    """
    if not stored.provenance["complete"] or stored.path is None:
        raise InputError(f"'{stored.path}' must be complete to be shown in a document.")
    try:
        file = stored.path.resolve().relative_to(ROOT).as_posix()
        text = document.read_text("utf-8")
    except ValueError:
        raise InputError(f"'{stored.path}' must lie in the repository.") from None
    except OSError as error:
        raise InputError(f"Cannot read '{document}': {error.strerror}.") from None
    made = {name for name, table in benchmark.tables.items() if table(stored.result) is not None}
    mine = [block for block in blocks(text)
            if block.benchmark == benchmark.name and block.table in made]  # fmt: skip
    if not mine:
        raise InputError(
            f"'{document}' must have a block of benchmarks.{benchmark.name}: {', '.join(made)}."
        )
    for block in mine:
        _check_peers(block, stored)

    def replaced(found: re.Match[str]) -> str:
        if found["name"] != benchmark.name or found["table"] not in made:
            return found[0]
        head = f"<!-- benchmarks.{benchmark.name}:{found['table']} {file} -->\n"
        return head + body(benchmark, found["table"], stored) + "<!-- / -->"

    write_text(document, _BLOCK.sub(replaced, text))


def rendered(text: str) -> str:
    """Return a document with every block rendered anew from the file that it names."""

    def one(found: re.Match[str]) -> str:
        benchmark = importlib.import_module(f"benchmarks.{found['name']}").BENCHMARK
        named = found["file"] != NONE
        stored = _stored.read(ROOT / found["file"], found["name"]) if named else None
        head = found[0].partition("\n")[0]
        return f"{head}\n{body(benchmark, found['table'], stored)}<!-- / -->"

    return _BLOCK.sub(one, text)


def _check_peers(block: Block, stored: Stored) -> None:
    if block.file == NONE:
        return
    shown = _stored.read(ROOT / block.file).provenance["peers"]
    new = stored.provenance["peers"]
    run = _stored.was_run
    lost = [name for name in shown if run(shown[name]) and not run(new.get(name, "not run"))]
    if lost:
        raise InputError(
            f"'{stored.path}' must have what the document shows of {', '.join(lost)}. "
            f"Received: {'; '.join(str(new.get(name)) for name in lost)}."
        )


def _told_seeds(seeds: list[int]) -> str:
    if len(seeds) > 3 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


if __name__ == "__main__":
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        old = page.read_text("utf-8")
        if (new := rendered(old)) != old:
            write_text(page, new)
            print(page)
