"""For how long a model was trained: what its run's folder tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compress.core.errors import InputError
from compress.plan import Plan
from compress.run.compressed_model import CompressedModel
from compress.run.origin import UNKNOWN_TRAINING, TrainingHistory, read_training
from search.plan import SearchPlan
from search.study.directory import Candidate, FinalTraining, SearchFolder

VAL = {"dense": {"accuracy": 0.9}, "pruned": {"accuracy": 0.9}}
WEIGHTS: dict[str, Any] = {"pruned": [], "kept": []}


def run_at(path: Path) -> SearchFolder:
    folder = SearchFolder(path)
    folder.claim("run", SearchPlan())
    folder.data.write_text('{"source": "digits"}')
    history = ({"epoch": 1}, {"epoch": 2}, {"epoch": 3})
    folder.write_candidate(Candidate("0001", "complete", {}, 1, history=history))
    folder.write_final(FinalTraining("0001", 0, 1, 40, 40, {"accuracy": 0.9}, {}, 1.0))
    folder.write_compressed(
        CompressedModel(
            "0001", "", VAL, WEIGHTS, 1, 5, "", 1.0, "CPU", (), (), compressed="0001-p80",
            finetuned=12, dense_epochs=40,
        )
    )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("candidates/0001.keras", TrainingHistory(3)),
        ("final/0001.keras", TrainingHistory(40)),
        ("final/0001-final0.keras", TrainingHistory(40)),
        # the dense model's 40 and 12 while it was compressed
        ("candidates/0001-p80.keras", TrainingHistory(52)),
        ("candidates/0007.keras", UNKNOWN_TRAINING),
        ("exports/0001.keras", UNKNOWN_TRAINING),
        ("../elsewhere/0001.keras", UNKNOWN_TRAINING),
    ],
)
def test_a_run_tells(tmp_path: Path, file: str, expected: TrainingHistory) -> None:
    folder = run_at(tmp_path / "run")
    assert read_training(folder.path / file) == expected


def store_option(folder: SearchFolder, name: str, value: object) -> None:
    """Stores an option of the search as earlier versions did."""
    stored = json.loads(folder.plan_path.read_text("utf-8"))
    stored["plan"]["search"][name] = value
    folder.plan_path.write_text(json.dumps(stored), "utf-8")


def test_weights_that_came_trained_are_told(tmp_path: Path) -> None:
    around = run_at(tmp_path / "around")
    store_option(around, "space", "around:m.keras")
    assert read_training(around.path / "candidates" / "0001.keras") == TrainingHistory(3, True)
    assert read_training(around.path / "final" / "0001.keras") == TrainingHistory(40, True)
    inherited = run_at(tmp_path / "inherit")
    store_option(inherited, "inherit", True)
    assert read_training(inherited.path / "candidates" / "0001.keras") == TrainingHistory(3, True)
    # final trainings begin anew
    assert read_training(inherited.path / "final" / "0001.keras") == TrainingHistory(40)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "plan.json' must have format 1. Received: 99"),
        ({"plan": {"search": "cnn"}}, "plan.search must be"),
    ],
)
def test_a_plan_of_another_format_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = run_at(tmp_path / "run")
    stored = json.loads(folder.plan_path.read_text("utf-8"))
    folder.plan_path.write_text(json.dumps(stored | changes), "utf-8")
    with pytest.raises(InputError, match=message):
        read_training(folder.path / "candidates" / "0001.keras")


def test_a_folder_that_was_compressed_into_is_a_run_too(tmp_path: Path) -> None:
    folder = SearchFolder(tmp_path / "out")
    folder.claim("compress", Plan())
    folder.data.write_text('{"source": "digits"}')
    folder.write_compressed(
        CompressedModel(
            "m", "", VAL, WEIGHTS, 1, 5, "", 1.0, "CPU", (), (), compressed="m-p80", finetuned=12
        )
    )
    # how long the dense model was trained is not known, so its compressed one neither
    assert read_training(folder.path / "candidates" / "m-p80.keras") == UNKNOWN_TRAINING
