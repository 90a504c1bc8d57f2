"""The same word means the same thing in every command; old names say what they are called now."""

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
    done = CliRunner().invoke(app, ["compress", "m.keras", "--finetune-epochs", "2"])
    assert plans[-1].finetune.epochs == 2
    assert "old name" not in done.stderr


def test_old_names_of_compress_still_work_and_say_their_new_ones(plans: list[Any]) -> None:
    words = ["compress", "m.keras", "--epochs", "2", "--optimizer", "sgd"]
    done = CliRunner().invoke(app, words)
    assert (plans[-1].finetune.epochs, plans[-1].finetune.optimizer) == (2, "sgd")
    assert done.stderr.splitlines() == [
        "paretune: --epochs is the old name of --finetune-epochs in this command.",
        "paretune: --optimizer is the old name of --finetune-optimizer in this command.",
    ]
    both = CliRunner().invoke(app, [*words, "--finetune-epochs", "4"])
    assert both.exit_code == 2
    assert "--finetune-epochs must be given once. Received: it and --epochs" in both.stderr
    assert len(plans) == 1


@pytest.mark.parametrize("command", ["run", "search"])
def test_an_optimizer_of_two_is_refused(command: str, plans: list[Any]) -> None:
    """It meant fine-tuning, and reads like the candidates' training."""
    done = CliRunner().invoke(app, [command, "--optimizer", "sgd"])
    assert done.exit_code == 2
    assert done.stderr == (
        "paretune: error: --optimizer could mean two things in this command. Received: sgd. Give "
        "--finetune-optimizer, or --optimizers: those that the search samples from.\n"
    )
    assert plans == []


def test_one_flag_has_one_help_text_in_every_plan() -> None:
    """A word that `compress` and `run` share is the same field of the same section."""
    places: dict[str, set[tuple[str, str]]] = {}
    for plan in (Plan, SearchPlan):
        for leaf in list_plan_fields(plan):
            places.setdefault(leaf.flag, set()).add((leaf.path, leaf.help))
    assert {flag: found for flag, found in places.items() if len(found) > 1} == {}
