"""Bad input on the command line: one clear line, exit code 2, nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from search.cli import app
from search.cli._options import read_plan_file
from tests.search.test_run import paretune


def test_one_line_and_exit_2(tmp_path: Path) -> None:
    done = paretune("run", "--trials", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("paretune: error: trials must be at least 1. Received: 0")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def later(*case: Any) -> Any:
    """A case of the slow part: each starts a process that loads TensorFlow."""
    return pytest.param(*case, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compress", "no.keras", "--data", "digits"], "A model file must exist"),
        later(["inspect", "no.keras"], "A model file must exist"),
        later(["bench", "no.keras"], "A model file must exist"),
        later(["bench", "note.txt"], "A model file must end in .keras, .h5"),
        later(["run", "--teacher", "no.keras"], "A model file must exist"),
        (["run", "--device", "gpu"], "device 'gpu' must have a GPU"),
    ],
)
def test_one_line_with_tensorflow_loaded(words: list[str], message: str, tmp_path: Path) -> None:
    done = paretune(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert f"paretune: error: {message}" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_inspect(tmp_path: Path, small_cnn: Callable[..., Any]) -> None:
    small_cnn().save(tmp_path / "m.keras")
    done = paretune("inspect", "m.keras", "--profile", "--out", "m.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "written: m.json"
    text = " ".join(done.stdout.split())
    # first: 64 * 9 * 8, mid: 16 * 9 * 8 * 16, hidden: 16 * 32, last: 32 * 10
    assert f"{(4608 + 18432 + 512 + 320) / 1000:.1f} k MACs" in text
    assert "hidden channels 32" in text
    assert "model output 'probabilities' 10 last" in text
    record = json.loads((tmp_path / "m.json").read_text())
    assert [group["total"] for group in record["groups"]] == [8, 16, 32]


@pytest.mark.slow
def test_inspect_a_file_that_is_no_keras_model(
    tmp_path: Path, small_cnn: Callable[..., Any]
) -> None:
    from compress.exporting.litert import export_litert

    macs = 4608 + 18432 + 512 + 320
    zeros = np.zeros((2, 8, 8, 1), np.float32)
    export_litert(small_cnn(), tmp_path / "m.tflite", "int8", representative=[zeros])
    small_cnn().export(tmp_path / "saved", verbose=False)
    for name, kind, operator in (
        ("m.tflite", "tflite", "CONV_2D"),
        ("saved", "saved_model", "Conv2D"),
    ):
        done = paretune("inspect", name, "--out", f"{kind}.json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        lines = done.stdout.splitlines()
        assert lines[-1] == f"written: {kind}.json"
        assert "it can be measured, and neither pruned nor fine-tuned. Give the Keras" in lines[-2]
        text = " ".join(lines)
        assert f"{macs / 1000:.1f} k MACs" in text
        record = json.loads((tmp_path / f"{kind}.json").read_text())
        assert (record["kind"], record["prunable"], record["costs"]["macs"]) == (kind, False, macs)
        rows = [row for row in record["costs"]["layers"] if row["kind"] == operator]
        assert [row["macs"] for row in rows] == [4608, 18432]
        assert [port["shape"][1:] for port in record["inputs"]] == [[8, 8, 1]]
        assert record["inputs"][0]["dtype"] == ("int8" if kind == "tflite" else "float32")


@pytest.mark.slow
def test_open_sizes_of_several_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras
    from keras import layers

    inputs = [keras.Input((None, None, 3), name="image"), keras.Input((None, 4), name="table")]
    made = [layers.Conv2D(5, 3, padding="same")(inputs[0]), layers.Dense(6)(inputs[1])]
    keras.Model(inputs, made).save(tmp_path / "m.keras")
    sizes = "image=8,9,3,table=7,4"
    monkeypatch.chdir(tmp_path)
    words = ["inspect", "m.keras", "--input-shape"]
    done = CliRunner().invoke(app, [*words, sizes, "--out", "m.json"])
    assert done.exit_code == 0, done.stderr
    macs = 8 * 9 * 27 * 5 + 7 * 4 * 6
    assert json.loads((tmp_path / "m.json").read_text())["costs"]["macs"] == macs
    done = CliRunner().invoke(app, [*words, "picture=8,9,3"])
    assert done.exit_code == 2
    assert "image (None, None, 3), table (None, 4). Received: picture." in done.stderr


def test_help_names_every_option_and_its_default(tmp_path: Path) -> None:
    text = " ".join(paretune("run", "--help-all", cwd=tmp_path).stdout.split())
    for expected in ("--data", "--max-macs", "[default: digits]", "--trials", "default: 20;"):
        assert expected in text
    assert "--finetune-epochs" in text


def test_a_plan_file_and_options_over_it(tmp_path: Path) -> None:
    from compress.plan.nesting import from_nested, merge_nested, nest_options
    from search.plan import SearchPlan

    (tmp_path / "p.toml").write_text("seed = 4\n[search]\ntrials = 3\nepochs = 9\n")
    stored = read_plan_file(tmp_path / "p.toml")
    plan = from_nested(SearchPlan, merge_nested(stored, nest_options(SearchPlan, {"trials": 8})))
    assert (plan.seed, plan.search.trials, plan.search.epochs) == (4, 8, 9)
