"""Bad input on the command line: one clear line, exit code 2, nothing written."""

from __future__ import annotations

import gzip
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


def bad_files(folder: Path) -> None:
    """Makes the data files and folders that the cases below name."""
    header = bytes([0, 0, 8, 3, 0, 0, 0, 30, 0, 0, 0, 4, 0, 0, 0, 4])
    (folder / "idx").mkdir()
    images = gzip.compress(header + bytes(480))
    (folder / "idx" / "train-images-idx3-ubyte.gz").write_bytes(images[:-9])
    labels = bytes([0, 0, 8, 1, 0, 0, 0, 30]) + bytes(i % 3 for i in range(30))
    (folder / "idx" / "train-labels-idx1-ubyte").write_bytes(labels)
    x, y = np.zeros((30, 8, 8), np.uint8), np.arange(30) % 3
    np.savez(folder / "lengths.npz", x_train=x, y_train=y[:29])
    np.savez(folder / "pickled.npz", x_train=np.array([{}] * 3, object), y_train=y[:3])
    np.savez(folder / "range.npz", x_train=x, y_train=np.where(y == 2, 9, y))
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0o555)
    (folder / "other").mkdir()
    (folder / "other" / "note.txt").write_text("mine")
    (folder / "bad.toml").write_text("[search]\ntrials = 'many'\n")
    (folder / "unknown.toml").write_text("[search]\ntrails = 3\n")


CASES = {
    "missing data": (["run", "--data", "nowhere"], "data must be a path that exists"),
    "truncated IDX": (["run", "--data", "idx"], "train-images-idx3-ubyte.gz' must be complete"),
    "lengths": (["run", "--data", "lengths.npz"], "Received: 30 and 29"),
    "pickled": (["run", "--data", "pickled.npz"], "without pickled objects"),
    "label range": (["run", "--data", "range.npz"], "in [0, 3) (3 classes). Received: 9"),
    "space": (
        ["run", "--space", "rnn"],
        "Unknown space 'rnn'. Did you mean 'cnn'? Choices: cnn, mlp, mobilenet, resnet. ",
    ),
    "sampler": (
        ["run", "--sampler", "x"],
        "Unknown sampler 'x'. Choices: auto, evolution",
    ),
    "optimizer": (["run", "--optimizers", "lion"], "Unknown optimizer 'lion'. Choices: adagrad"),
    "no trials": (["run", "--trials", "0"], "trials must be at least 1. Received: 0"),
    "read-only": (["run", "--out", "locked/r"], "must be writable"),
    "foreign folder": (["run", "--out", "other"], "must be empty or an earlier run's"),
    "search too": (["search", "--trials", "0"], "trials must be at least 1"),
    "plan file": (["run", "--plan", "bad.toml"], "trials must be an integer"),
    "plan key": (["run", "--plan", "unknown.toml"], "Did you mean 'trials'"),
    "no plan": (["run", "--plan", "no.toml"], "Cannot read plan 'no.toml'"),
    "replay": (["search", "--warm-start", "no.json"], "Cannot read 'no.json'"),
    "report": (["report", "nowhere"], "must be the folder of a run"),
    "channels": (["compress", "m.keras", "--channels", "0x"], "keep a share in (0, 1]"),
    "channel words": (["run", "--channels", "half"], "a count like 12M. Received: 'half'"),
    "round to": (["compress", "m.keras", "--round-to", "-1"], "round_to must be at least 0"),
    "task": (["compress", "m.keras", "--task", "ranking"], "Unknown task 'ranking'"),
    "temperature": (["compress", "m.keras", "--temperature", "0"], "temperature must be above 0"),
    "hint": (["compress", "m.keras", "--feature-losses", "fitnet"], "Did you mean 'fitnets'"),
    "no bench threads": (["bench", "m.keras", "--threads", "0"], "threads must be at least 1"),
    "bench runtime": (["bench", "m.keras", "--runtimes", "trt"], "Unknown runtime 'trt'"),
    "bench shape": (["bench", "m.keras", "--input-shape", "a,3"], "sizes with commas"),
    "bench one": (["bench", "m.keras", "--compare", "m"], "compare must name two models"),
    "sparsity": (["compress", "m.keras", "--sparsity", "1.2"], "sparsity must be in [0, 1)"),
    "no data": (["compress", "m.keras"], "data must be named"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_exit_2(case: str, tmp_path: Path) -> None:
    words, message = CASES[case]
    bad_files(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = paretune(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("paretune: error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


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
