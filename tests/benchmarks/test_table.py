"""The table of benchmarks is all of them, and what `make bench` runs."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks import __main__ as runner
from benchmarks import memory_budget, whole_run
from benchmarks.__main__ import TABLE
from benchmarks._common import PEERS, Benchmark
from benchmarks._stored import ROOT
from search.cli import app

FOLDER = ROOT / "benchmarks"


def with_main() -> list[str]:
    """Names of the modules that can be run."""
    found = []
    for path in sorted(FOLDER.glob("*.py")):
        names = {
            node.name
            for node in ast.parse(path.read_text("utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }
        if "main" in names and path.stem != "__main__":
            found.append(path.stem)
    assert len(found) > 10
    return found


def benchmark_of(name: str) -> Benchmark:
    found: Benchmark = importlib.import_module(f"benchmarks.{name}").BENCHMARK
    return found


def test_every_module_with_a_main_is_in_the_table() -> None:
    assert sorted({entry.name for entry in TABLE}) == with_main()


def test_make_bench_runs_the_table() -> None:
    rule = (ROOT / "Makefile").read_text("utf-8").partition("\nbench:")[2].split("\n\n")[0]
    commands = [line.strip() for line in rule.splitlines() if line.startswith("\t")]
    assert commands == ["$(BIN)/python -m benchmarks"]
    ran: list[Sequence[str]] = []

    def run(command: Sequence[str]) -> int:
        ran.append(command)
        return 0

    assert runner.main([], run) == 0
    assert ran == [entry.command for entry in TABLE]
    assert ran[0] == ("-m", "benchmarks.trial_speed", "--rounds", "5")


def test_one_that_fails_is_told_and_the_others_run(capsys: pytest.CaptureFixture[str]) -> None:
    ran = []

    def run(command: Sequence[str]) -> int:
        ran.append(command)
        return int(command[1] == "benchmarks.trial_speed")

    assert runner.main([], run) == 1
    assert len(ran) == len(TABLE)
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "failed: python -m benchmarks.trial_speed --rounds 5"
    )


def test_some_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[Sequence[str]] = []
    runner.main(["verdicts"], lambda command: ran.append(command) or 0)
    assert ran == [("-m", "benchmarks.verdicts")]
    with pytest.raises(SystemExit):
        runner.main(["nope"])
    assert "Received: nope" in capsys.readouterr().err
    assert runner.main(["--list"], lambda command: pytest.fail("only told")) == 0
    assert "python -m benchmarks.shrink_peers --seeds 0" in capsys.readouterr().out


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_an_entry_is_a_benchmark(entry: runner.Entry, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = benchmark_of(entry.name)
    assert benchmark.name == entry.name
    assert set(benchmark.peers) <= set(PEERS)
    assert benchmark.tables
    with pytest.raises(SystemExit) as stop:
        benchmark.run(["--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "--show" in said
    assert ("--resume" in said) is benchmark.resumable


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_a_full_run_is_asked_for_in_words_that_there_are(entry: runner.Entry) -> None:
    module = importlib.import_module(f"benchmarks.{entry.name}")
    given = vars(module.BENCHMARK._parser().parse_args(entry.words.split()))
    for option, tables in (("nets", ("NETS", "RECIPES")), ("models", ("MODELS",))):
        names = given.get(option, ())
        known = [getattr(module, table) for table in tables if hasattr(module, table)]
        if known:
            assert set(names.split(",") if isinstance(names, str) else names) <= set(known[0])


def test_every_peer_script_is_run_by_a_benchmark() -> None:
    scripts = sorted(path.stem for path in (FOLDER / "peers").glob("*.py"))
    texts = "".join(path.read_text("utf-8") for path in FOLDER.glob("*.py"))
    assert scripts
    assert [name for name in scripts if name not in texts] == []


def test_a_full_run_takes_half_a_day() -> None:
    assert sum(entry.minutes for entry in TABLE) <= 12 * 60
    assert all(entry.proves for entry in TABLE)


@pytest.mark.parametrize("command", [
    *(memory_budget.command_of(f"net {kind}", Path("folder"), "4GB", macs)[3:]
      for kind in ("shrink", "compress") for macs in (True, False)),
    *(["run", *words] for words in whole_run.CASES.values()),
    ["bench", "a.tflite", "b.tflite", "--precision", "0.01", "--budget", "60", "--seed", "1"],
])  # fmt: skip
def test_commands_of_benchmarks_are_those_of_today(command: list[str]) -> None:
    commands: Any = typer.main.get_command(app)
    name, *words = command
    context = commands.commands[name].make_context(name, words)  # raises for unknown options
    assert context.params
