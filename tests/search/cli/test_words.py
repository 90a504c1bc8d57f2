"""One name means the same thing in every command; old names are answered with the new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from compress.plan import Plan
from compress.plan.fields import list_plan_fields
from search.cli import app
from search.plan import SearchPlan


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Collects the plans that commands would run, instead of running them."""
    made: list[Any] = []

    class Ended(Exception):
        """Nothing is run."""

    def collect(*arguments: Any, plan: Any = None, **_: Any) -> None:
        made.append(plan if plan is not None else arguments[0])
        raise Ended

    monkeypatch.setattr("search.pipeline.run", collect)
    monkeypatch.setattr("search.pipeline.run_search", collect)
    monkeypatch.setattr("compress.shrinking.compression.compress_model", collect)
    monkeypatch.chdir(tmp_path)
    return made


def test_epochs_is_a_candidates_training_wherever_there_is_one(plans: list[Any]) -> None:
    for command in ("run", "search"):
        CliRunner().invoke(app, [command, "--epochs", "3", "--finetune-epochs", "2"])
        assert (plans[-1].search.epochs, plans[-1].finetune.epochs) == (3, 2)
    CliRunner().invoke(app, ["compress", "m.keras", "--finetune-epochs", "2"])
    assert plans[-1].finetune.epochs == 2


@pytest.mark.parametrize("command", ["run", "search", "compress"])
def test_an_old_name_is_refused_with_its_new_one(command: str, plans: list[Any]) -> None:
    words = [command, *(["m.keras"] if command == "compress" else [])]
    done = CliRunner().invoke(app, [*words, "--optimizer", "sgd"])
    assert done.exit_code == 2
    assert done.stderr == (
        f"paretune: error: Unknown option '--optimizer' of `paretune {command}`. It is called "
        f"'--finetune-optimizer' now. `paretune {command} --help-all` lists them.\n"
    )
    assert plans == []


def test_one_flag_has_one_help_text_in_every_plan() -> None:
    """A word that `compress` and `run` share is the same field of the same section."""
    places: dict[str, set[tuple[str, str]]] = {}
    for plan in (Plan, SearchPlan):
        for leaf in list_plan_fields(plan):
            places.setdefault(leaf.flag, set()).add((leaf.path, leaf.help))
    assert {flag: found for flag, found in places.items() if len(found) > 1} == {}
