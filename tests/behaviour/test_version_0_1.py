"""What version 0.1 stored is read, resumed and reported: a run's folder, a recipe, a TOML plan."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import paretune as pt
from tests.behaviour.conftest import MACS, Command, Digits

STORED = Path(__file__).parent / "version_0_1"
RUN = ("run", "--data", "digits", "--space", "mlp", "--epochs", 1, "--finetune-epochs", 1,
       "--formats", "float32", "--latency-budget", 0.5, "--workers", 1, "--device", "cpu", "--out",
       "run")  # fmt: skip
"""The command that made the folder, but for `--trials 2`."""


def test_a_run_is_reported_and_resumed(paretune: Command, tmp_path: Path) -> None:
    with zipfile.ZipFile(STORED / "run.zip") as stored:
        stored.extractall(tmp_path)
    folder = tmp_path / "run"
    records = {path.name: path.read_bytes() for path in (folder / "candidates").glob("*.json")}
    assert len(records) == 2
    files = {path.name: path.read_bytes() for path in (folder / "exports").glob("*.tflite")}
    shown = paretune("report", "run")
    assert shown.code == 0, shown.said
    assert (folder / "report.html").stat().st_size > 0
    report = json.loads((folder / "report.json").read_text())
    for row in report["files"]:
        assert row["size_bytes"] == len(files[Path(row["file"]).name])
    extended = paretune(*RUN, "--trials", 3)
    assert extended.code == 0, extended.said
    after = {path.name: path.read_bytes() for path in (folder / "candidates").glob("*.json")}
    assert len(after) == 3
    assert {name: after[name] for name in records} == records


def test_models_trained_on_the_validation_part_are_refused(
    paretune: Command, tmp_path: Path
) -> None:
    with zipfile.ZipFile(STORED / "run.zip") as stored:
        stored.extractall(tmp_path)
    file = tmp_path / "run" / "plan.json"
    record = json.loads(file.read_text())
    record["plan"]["final"]["on_validation"] = True
    file.write_text(json.dumps(record))
    model = tmp_path / "run" / "candidates" / "0000-p80.keras"
    for command in (
        ("report", "run"),
        (*RUN, "--trials", 2),
        ("compress", model, "--data", "digits", "--out", "r"),
        ("shrink", model, "--data", "digits", "--macs", "0.5x", "--out", "r"),
    ):
        refused = paretune(*command)
        assert refused.code == 2, refused.said
        assert "not trained on the validation part" in " ".join(refused.said.split())
    assert not (tmp_path / "r").exists()


def test_a_recipe_is_used(model_file: Path, images: Digits, tmp_path: Path) -> None:
    made = pt.shrink(
        model_file, images.x, images.y, recipe=STORED / "recipe.toml", out=tmp_path / "r"
    )
    assert made.model is not None
    assert pt.count_macs(made.model).macs <= 0.5 * MACS


def test_a_plan_is_read(
    paretune: Command, model_file: Path, data_file: Path, tmp_path: Path
) -> None:
    done = paretune("compress", model_file, "--data", data_file, "--plan", STORED / "plan.toml",
                    "--device", "cpu", "--out", "r")  # fmt: skip
    assert done.code == 0, done.said
    plan = json.loads((tmp_path / "r" / "plan.json").read_text())["plan"]
    assert plan["seed"] == 3
    assert plan["channels"]["target"] == "0.5x"
    assert plan["finetune"]["batch_size"] == 64


def test_a_plan_of_a_search_is_read(paretune: Command, tmp_path: Path) -> None:
    done = paretune("search", "--plan", STORED / "search.toml", "--data", "digits",
                    "--device", "cpu", "--max-minutes", 8, "--out", "r")  # fmt: skip
    assert done.code == 0, done.said
    plan = json.loads((tmp_path / "r" / "plan.json").read_text())["plan"]
    assert plan["search"]["stopping"] == "none"
    assert plan["search"]["max_minutes"] == 8
    assert plan["search"]["trial_minutes"] == 5
    assert plan["cluster"]["engine"] == "local"
    assert not {"stopping", "budget", "engine"} & plan.keys()
