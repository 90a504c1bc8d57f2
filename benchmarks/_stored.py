"""Result files of benchmarks: their place, provenance and resumption.

Each run writes a new file, `benchmarks/results/<benchmark>/<date>-<commit>.json`; only
`--resume FILE` continues from one. A file holds "benchmark", "provenance" (below), and "result".

Provenance, as JSON:
    command: What was typed, from `python -m` on.
    commit, dirty: The tree that ran; dirty: tracked files differed from the commit.
    date: When it began, UTC.
    seeds: Of everything that was drawn.
    machine: Processor, cores, versions.
    settings: The options that decide what was measured.
    peers: What became of the other side: its version, or "not run: <reason>".
    complete: False while the run is under way, or where it was interrupted.
    resumed: When and at which commits it went on, and on which machine where that was another.
    recovered: Of files that are older than this record: how commit and date were found.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from compress.core import linux
from compress.core.atomic_files import read_json, write_json
from compress.core.device import read_cpu_name
from compress.core.errors import InputError

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("tensorflow", "keras", "optuna", "numpy", "ai-edge-litert")
KEYS = (
    "command", "commit", "dirty", "date", "seeds", "machine", "settings", "peers", "complete",
    "resumed",
)  # fmt: skip
"""What every file's provenance holds."""
_RESUME = re.compile(r" --resume[ =]('[^']*'|\S+)")


@dataclass
class Stored:
    """One result file, or what will become one when it is first saved.

    Attributes:
        benchmark: The module's name.
        provenance: See the module.
        result: What was measured.
        path: Where it lies; None: not saved yet.
    """

    benchmark: str
    provenance: dict[str, Any]
    result: dict[str, Any]
    path: Path | None = None

    def save(self, **changes: Any) -> Path:
        """Write the file in one step, under a name of its own the first time.

        Args:
            **changes: Entries of the result to set before.
        """
        self.result.update(changes)
        content = {
            "benchmark": self.benchmark, "provenance": self.provenance, "result": self.result,
        }  # fmt: skip
        if self.path is None:
            self.path = _new_file(self.benchmark, self.provenance, content)
        else:
            write_json(self.path, content)
        return self.path

    @property
    def short_commit(self) -> str:
        """The first seven digits of the commit, or "unknown"."""
        return str(self.provenance["commit"] or "unknown")[:7]

    @property
    def commands(self) -> tuple[str, ...]:
        """What was typed, each once, as it would be typed to measure anew."""
        typed = [self.provenance, *self.provenance["resumed"]]
        found = [_RESUME.sub("", item["command"]) for item in typed if item.get("command")]
        return tuple(dict.fromkeys(found))

    @property
    def commits(self) -> tuple[str, ...]:
        """Commits that were measured, each once, shortened."""
        commits = [self.short_commit + (" with changes" if self.provenance["dirty"] else "")]
        commits += [str(item["commit"] or "unknown")[:7] for item in self.provenance["resumed"]]
        return tuple(dict.fromkeys(commits))

    def describe_commits(self) -> str:
        """Return the commits as text."""
        plural = "s" if len(self.commits) > 1 else ""
        recovered = " (recovered from git log)" if self.provenance.get("recovered") else ""
        return f"commit{plural} {', '.join(self.commits)}{recovered}"

    def describe_machines(self) -> str:
        """Return the processors that were measured, and the cores of the first one, as text."""
        machine = self.provenance["machine"]
        cores = "core" if machine["cores"] == 1 else "cores"
        others = [
            item["machine"]["cpu"] for item in self.provenance["resumed"] if "machine" in item
        ]
        text = f"{machine['cpu']}, {machine['cores']} {cores}"
        text += "".join(f", then {cpu}" for cpu in dict.fromkeys(others))
        return text + ("" if self.provenance["complete"] else ", unfinished")

    def origin(self) -> str:
        """Return date, commits and machines in one line."""
        date = self.provenance["date"][:10]
        return f"{date}, {self.describe_commits()}, {self.describe_machines()}"


def machine() -> dict[str, Any]:
    """Return the processor, its cores and the versions of packages."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    cores, python = linux.count_cores(), platform.python_version()
    return {"cpu": read_cpu_name(), "cores": cores, "python": python, **versions}


def revision(root: Path = ROOT) -> tuple[str | None, bool | None]:
    """Return the commit that stands in the working tree, and whether tracked files differ.

    Returns:
        (None, None) where there is no git or no repository.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        # results that lie there do not change what runs
        rest = ("--", ".", ":(exclude)benchmarks/results")
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "-uno", *rest))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def begin(benchmark: str, settings: Mapping[str, Any], seeds: Sequence[int]) -> Stored:
    """Return an empty result of this run; its file appears when something is measured."""
    commit, dirty = revision()
    provenance = {
        "command": _command(benchmark),
        "commit": commit,
        "dirty": dirty,
        "date": _now(),
        "seeds": list(seeds),
        "machine": machine(),
        "settings": dict(settings),
        "peers": {},
        "complete": False,
        "resumed": [],
    }
    return Stored(benchmark, provenance, {})


def read(path: Path, benchmark: str | None = None) -> Stored:
    """Read a result file.

    Args:
        path: The file.
        benchmark: Whose result it must be; None: anyone's.

    Raises:
        InputError: There is no such file, or it is none of the benchmark's results.
    """
    content = read_json(path)
    told = content.get("provenance")
    if not isinstance(told, dict) or not isinstance(content.get("result"), dict):
        raise InputError(f"'{path}' must be a result of a benchmark: it has no provenance.")
    if missing := [key for key in KEYS if key not in told]:
        raise InputError(f"'{path}' must say its provenance. Missing: {', '.join(missing)}.")
    if benchmark not in (None, content.get("benchmark")):
        raise InputError(
            f"'{path}' must be a result of benchmarks.{benchmark}. "
            f"Received: one of {content.get('benchmark')}."
        )
    return Stored(content["benchmark"], told, content["result"], path)


def resume(
    path: Path,
    benchmark: str,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
    grows: Sequence[str] = (),
    anywhere: bool = False,
) -> Stored:
    """Return a stored result to go on with.

    Args:
        path: Its file, which is written to from now on.
        benchmark: Whose result it must be.
        settings: The options of this run.
        seeds: Of this run.
        grows: Options that may differ: they ask for more of the same.
        anywhere: Another processor may go on: what is measured is no time, or each row is of one
            processor alone.

    Raises:
        InputError: The file is not the benchmark's, or was made with other settings or on
            another machine, whose figures would mix with new ones.
    """
    stored = read(path, benchmark)
    told, here = stored.provenance, machine()
    free = ("cpu", "cores") if anywhere else ()
    differ = [key for key in here if key not in free and told["machine"].get(key) != here[key]]
    if differ:
        raise InputError(
            f"'{path}' must have been measured on this machine to go on. "
            f"Other: {', '.join(differ)}. Begin a new file (without --resume)."
        )
    old = told["settings"]
    if old is None:
        raise InputError(f"'{path}' does not say its settings, so nothing can be added to it.")
    # through JSON tuples become lists
    given = {name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()}
    differ = [name for name in given if name not in grows and given[name] != old.get(name)]
    if differ:
        raise InputError(
            f"'{path}' must have the same settings to go on. Other: "
            + ", ".join(f"{name} ({old.get(name)}, now {given[name]})" for name in differ)
            + ". Begin a new file (without --resume)."
        )
    commit, dirty = revision()
    again = {"date": _now(), "commit": commit, "dirty": dirty, "command": _command(benchmark)}
    told["resumed"].append(again if told["machine"] == here else again | {"machine": here})
    told["seeds"] = sorted({*told["seeds"], *seeds})
    told["settings"], told["complete"] = given, False
    return stored


def kept_peer(old: Any, new: Any) -> Any:
    """Return the row of a peer: a measured one is never replaced by one that was not run."""
    return old if was_run(old) and not was_run(new) else new


def was_run(row: Any) -> bool:
    """Return whether a peer's row, or what provenance says of it, was measured."""
    if isinstance(row, str):
        return not row.startswith("not run")
    return bool(row) and not (isinstance(row, Mapping) and "not run" in row)


def _command(benchmark: str) -> str:
    words = map(shown_path, sys.argv[1:])
    return shlex.join(["python", "-m", f"benchmarks.{benchmark}", *words])


def shown_path(word: str) -> str:
    """Return a word as it is recorded: of a path outside the repository its last name alone."""
    path = Path(word)
    outside = path.exists() and not path.resolve().is_relative_to(ROOT.resolve())
    return path.name if outside else word


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _new_file(benchmark: str, told: Mapping[str, Any], content: Mapping[str, Any]) -> Path:
    """Write a file that did not exist: no run takes another's name, not even at one time."""
    folder = RESULTS / benchmark
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{told['date'][:10]}-{str(told['commit'] or 'unknown')[:7]}"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as place:
        whole = Path(place) / "whole.json"
        write_json(whole, content)
        for number in range(1, 10_000):
            path = folder / (f"{stem}.json" if number == 1 else f"{stem}-{number}.json")
            try:
                os.link(whole, path)  # unlike a rename, it fails where the name is taken
            except FileExistsError:
                continue
            return path
    raise InputError(f"'{folder}' is full: 10,000 results of one day and commit.")
