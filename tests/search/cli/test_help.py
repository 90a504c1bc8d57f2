"""Help: what matters first on one screen, the rest in groups; words that are not understood."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from compress._version import __version__
from compress.plan import Plan
from compress.plan.bench import BenchPlan
from compress.plan.fields import list_plan_fields
from compress.plan.nesting import build_command_words, from_flat
from compress.plan.shrink import ShrinkPlan
from search.cli import app, bench, run
from search.cli._help import JOBS, SECTIONS, SYNONYMS
from search.cli._options import create_plan_command
from search.plan import SearchPlan
from tests.search.cli.terminal import on_terminal

PLANS: dict[str, Any] = {
    "run": SearchPlan, "search": SearchPlan, "compress": Plan, "bench": BenchPlan,
}  # fmt: skip
BASIC = {
    **run.BASIC, "bench": bench.BASIC,
}  # fmt: skip
OTHERS = ("inspect", "report")


def invoked(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def options(text: str) -> list[str]:
    """Returns the options that a help text lists, one a row."""
    return re.findall(r"^  (--[\w-]+)", text, re.MULTILINE)


@pytest.mark.parametrize("command", PLANS)
def test_help_is_one_screen_of_what_matters_first(command: str) -> None:
    done = invoked(command, "--help")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    shown = [f"--{name.replace('_', '-')}" for name in BASIC[command]]
    assert options(done.stdout) == [*shown, "--help-all"]
    assert 6 <= len(shown) <= 12


def test_options_that_a_goal_always_refuses_are_not_listed() -> None:
    assert ShrinkPlan.refused_options <= {leaf.flat_name for leaf in list_plan_fields(ShrinkPlan)}
    listed = options(invoked("shrink", "--help-all").stdout)
    assert "--max-drop" in listed
    assert not {"--sparsity", "--channels", "--weight-pattern", "--as-long"} & {*listed}
    done = invoked("shrink", "m.keras", "--data", "digits", "--sparsity", "0.5")
    assert done.exit_code == 2
    assert "sparsity must be 0 on the way to a goal. Received: 0.5." in done.output


def test_what_is_on_by_default_can_be_switched_off() -> None:
    assert "--blocks / --no-blocks" in invoked("shrink", "--help-all").stdout
    plan = from_flat(ShrinkPlan, {"data": "digits", "max_drop": 1.0, "blocks": False})
    words = build_command_words(plan)
    assert "--no-blocks" in words
    assert "--blocks" not in words
    parsed = {}

    def keep(plan: ShrinkPlan) -> None:
        parsed["plan"] = plan

    command = create_plan_command(ShrinkPlan, keep)
    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, words).exit_code == 0
    assert parsed["plan"] == plan
    assert not parsed["plan"].channels.blocks


def test_help_on_a_terminal_of_80_by_40() -> None:
    lines = on_terminal("run", "--help", columns=80).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert options("\n".join(lines))[-1] == "--help-all"


@pytest.mark.parametrize("command", PLANS)
def test_help_all_shows_every_option_once_in_its_group(command: str) -> None:
    text = invoked(command, "--help-all").stdout
    flags = [leaf.flag for leaf in list_plan_fields(PLANS[command])]
    assert sorted(options(text)) == sorted(
        [*flags, "--plan", "--quiet", "--json", "--help-all", "--help"]
    )
    groups: dict[str, list[str]] = {}
    for part in text.split("\n\n"):
        title, _, rows = part.partition("\n")
        if title.endswith(":"):
            groups[title[:-1]] = options(rows)
    for leaf in list_plan_fields(PLANS[command]):
        (home,) = (title for title, found in groups.items() if leaf.flag in found)
        if leaf.section is not None:
            assert home == SECTIONS[leaf.section]
    assert [title for title in groups if title in SECTIONS.values()] == [
        title for title in SECTIONS.values() if title in groups
    ]
    assert max(map(len, text.splitlines())) <= 80


def test_a_wide_terminal_gives_help_more_room() -> None:
    lines = on_terminal("compress", "--help-all", columns=200).splitlines()
    assert 80 < max(map(len, lines)) <= 100


@pytest.mark.parametrize("command", OTHERS)
def test_small_commands_take_help_all_too(command: str) -> None:
    assert invoked(command, "--help-all").stdout == invoked(command, "--help").stdout


def test_the_list_of_commands_cuts_no_sentence() -> None:
    text = invoked("--help").stdout
    for command in (*PLANS, *OTHERS, "space"):
        assert re.search(rf"^  {command} +\w", text, re.MULTILINE), command
    assert "..." not in text.partition("Commands:")[2]
    assert invoked("--version").stdout == f"paretune {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serch"], "Unknown command 'serch'. Did you mean 'search'? Choices: bench, compress, "),
        (["serch"], "Did you mean 'search'?"),
        (["space", "describ", "cnn"], "Did you mean 'describe'?"),
        (["run", "--trails", "3"], "Unknown option '--trails' of `paretune run`. Did you mean"),
        (["run", "--trails", "3"], "Did you mean '--trials'?"),
        (["search", "--dataset", "digits"], "Did you mean '--data'?"),
        (["compress", "m.keras", "--lr", "1"], "Did you mean '--learning-rate'?"),
        (["compress", "m.keras", "--zzz", "1"], "`paretune compress --help-all` lists them."),
        (["run", "--help-al"], "Did you mean '--help-all'?"),
        (["compress"], "Missing argument 'MODEL'. `paretune compress --help` says how."),
        (["run", "digits"], "unexpected extra argument"),
        (["run", "--trials"], "'--trials' requires an argument."),
        (["run", "--sampler", "tqe"], "Did you mean 'tpe'?"),
        (["bench", "m.keras", "--runtimes", "tflite"], "Did you mean 'litert'?"),
        (["space", "describe", "resnett"], "Did you mean 'resnet'?"),
        (["inspect", "m.keras", "--threads", "two"], "threads must be an integer"),
        (["space", "describe", "cnn", "--samples", "0"], "samples must be at least 1"),
        (["storage", "serve", "--storage", "x", "--port", "y"], "port must be an integer"),
        (["dashboard", "r"], "Command 'dashboard' was removed. Optuna's own shows the study: "),
        (["dashboard", "--help"], "`optuna-dashboard RUN/study.journal`"),
    ],
)
def test_what_is_not_understood_is_told_in_one_line(words: list[str], said: str) -> None:
    done = invoked(*words)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("paretune: error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_options_of_other_tools_lead_to_ours() -> None:
    ours = {leaf.flag for plan in PLANS.values() for leaf in list_plan_fields(plan)}
    assert set(SYNONYMS.values()) <= ours
    assert not set(SYNONYMS) & ours


def test_no_command_at_all_shows_the_jobs_with_examples() -> None:
    done = invoked()
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 100
    examples = [line.split() for line in lines if line.startswith("  ")]
    assert [words[:2] for words in examples] == [["paretune", name] for name in JOBS]
    for _, command, *words in examples:
        known = options(invoked(command, "--help-all").stdout)
        assert {word for word in words if word.startswith("--")} <= {*known}


def test_examples_come_before_the_options() -> None:
    for command, (_, examples) in JOBS.items():
        text = invoked(command, "--help-all").stdout
        assert all(f"  {example}\n" in text.partition("\nOptions:")[0] for example in examples)
