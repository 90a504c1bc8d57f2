"""What a compressed model's name says, and when pruning of channels may be skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compress.core.device import Device
from compress.core.errors import FeasibleError, InputError
from compress.core.summary import ignore_progress
from compress.data import Dataset
from compress.model.io import load_model
from compress.plan import Plan
from compress.plan.nesting import from_flat
from compress.prune.channels import prune_channels
from compress.report import render_report
from compress.run.compressed_model import CompressedModel
from compress.run.directory import RunFolder
from compress.shrinking.compression import compress_stage
from compress.shrinking.compression_job import RunContext, prepare_job
from compress.shrinking.file_evaluation import measure_stage
from tests.compress.report.test_report import artifact

QUICK = {"finetune_epochs": 1, "batch_size": 32, "teacher": "none", "formats": "float32"}


def mlp(*widths: int) -> Any:
    """Dense layers on 4 inputs: h0, h1, ... and the head of three classes."""
    import keras

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((4,))
    for place, width in enumerate(widths):
        x = keras.layers.Dense(width, activation="relu", name=f"h{place}")(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="head")(x))


def compressed(
    model: Any, values: dict[str, object], data: Dataset, device: Device, place: Path
) -> CompressedModel:
    """Runs the compress stage on a model as a run does on one of its front."""
    plan = from_flat(Plan, {**QUICK, **values})
    folder = RunFolder(place)
    folder.claim("compress", plan)
    work = RunContext(data, plan, device)
    compress_stage(prepare_job(model, Path("m.keras"), work), folder, "c")
    (record,) = folder.read_compressed()
    assert folder.get_model_path(record.compressed_name).is_file()
    assert record.artifacts
    for item in record.artifacts:
        name = record.compressed_name if item.variant == "pruned" else "m"
        assert item.id == f"{name}.float32"
        assert (place / item.file).is_file()
    return record


@pytest.mark.parametrize(
    ("widths", "values", "name", "note"),
    [
        # 4 * 16 + 16 * 16 + 16 * 3 MACs; a hundredth of them is less than any layer needs
        ((16, 16), {"channels": "0.01x", "sparsity": 0.5}, "m-p50", "macs must be at least"),
        # a model that is below an absolute target already
        ((16, 16), {"channels": "1M", "sparsity": 0.0}, "m-p0", "macs must be at most"),
        (
            (),
            {"channels": "0.5x", "sparsity": 0.0},
            "m-p0",
            "Received: none; not prunable: 3 units",
        ),
        # the only layer is the first and the last one: its weights stay
        ((), {"sparsity": 0.5}, "m-p0", "no layer was pruned"),
        (
            (64, 64),
            {"channels": "0.5x", "sparsity": 0.5, "channel_criterion": "l2"},
            "m-c0_5x-p50",
            "",
        ),
    ],
)
def test_the_name_says_what_was_done(
    widths: tuple[int, ...], values: dict[str, object], name: str, note: str,
    blobs: Dataset, cpu: Device, tmp_path: Path,
) -> None:  # fmt: skip
    record = compressed(mlp(*widths), values, blobs, cpu, tmp_path / "run")
    assert record.compressed_name == record.compressed == name
    assert not note or any(note in text for text in record.notes)
    assert (record.channels is None) == ("-c" not in name)
    small, dense = load_model(tmp_path / "run" / "candidates" / f"{name}.keras"), mlp(*widths)
    assert (small.count_params() < dense.count_params()) == ("-c" in name)


def test_a_target_that_is_missed_is_not_in_the_name(
    blobs: Dataset, cpu: Device, tmp_path: Path
) -> None:
    """One hidden layer of 16 in steps of 8: 0.7x is asked for, half is what can be kept."""
    values = {"channels": "0.7x", "sparsity": 0.0, "round_to": 8}
    record = compressed(mlp(16), values, blobs, cpu, tmp_path / "run")
    assert record.compressed_name == "m-c0_5x"
    assert record.channels is not None
    assert record.channels["macs"] == [16 * 7, 8 * 7]
    assert any("the nearest feasible macs" in text for text in record.notes)


@pytest.mark.slow
def test_a_model_of_open_sizes_is_compressed_at_the_datas(
    digits: Dataset, cpu: Device, tmp_path: Path
) -> None:
    """Positions count: most MACs are in the first layers, most parameters in the last."""
    import keras

    x = inputs = keras.Input((None, None, 1))
    for place, width in enumerate((32, 32, 64)):
        x = keras.layers.Conv2D(width, 3, strides=1 + place // 2, padding="same")(x)
    x = keras.layers.Dense(10, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    values = {"channels": "0.5x", "sparsity": 0.0, "batch_size": 128}
    record = compressed(model, values, digits, cpu, tmp_path / "run")
    full = 64 * 9 * 32 + 64 * 9 * 32 * 32 + 16 * 9 * 32 * 64 + 640
    assert record.channels is not None
    assert record.channels["macs"][0] == full
    dense, small = record.artifacts
    assert (dense.macs, small.macs) == tuple(record.channels["macs"])
    assert small.macs == pytest.approx(0.5 * full, rel=0.02)
    assert dense.unsupported == small.unsupported == ()


def test_a_record_of_the_first_release_is_named_by_its_files() -> None:
    old: dict[str, Any] = {
        "model": "my.net", "teacher": "", "val": {}, "weights": {}, "best_epoch": 1, "epochs": 1,
        "command": "", "seconds": 1.0, "device": "", "notes": [], "channels": None,
        "artifacts": [
            artifact("my.net", "dense", "float32", 0.9, 10),
            artifact("my.net-c0_5x", "pruned", "float32", 0.9, 5),
        ],
    }  # fmt: skip
    assert CompressedModel(**old).compressed_name == "my.net-c0_5x-p80"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channel_criterion": "nope"}, "Unknown channel criterion 'nope'"),
        ({"channel_exclude": "nosuch"}, "'nosuch'. Choices: h0, h1"),
    ],
)
def test_what_is_wrong_otherwise_is_not_swallowed(
    values: dict[str, object], message: str, blobs: Dataset, cpu: Device, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        compressed(mlp(16, 16), {"channels": "0.5x", **values}, blobs, cpu, tmp_path / "run")
    assert not list((tmp_path / "run").glob("compressed/*"))


@pytest.mark.parametrize("arguments", [{"macs": 0.01}, {"macs": 1e9}, {"params": 10}])
def test_targets_that_cannot_be_met_have_an_error_of_their_own(arguments: dict[str, Any]) -> None:
    with pytest.raises(FeasibleError):
        prune_channels(mlp(16, 16), **arguments)


def test_a_model_without_channels_cannot_meet_a_target() -> None:
    with pytest.raises(FeasibleError, match="Received: none"):
        prune_channels(mlp(), macs=0.5)
    with pytest.raises(InputError, match="Unknown channel criterion") as wrong:
        prune_channels(mlp(16), macs=0.5, criterion="nope")
    assert not isinstance(wrong.value, FeasibleError)


@pytest.mark.slow
def test_nothing_is_trained_and_all_is_repaired(
    blobs: Dataset, cpu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "compress.shrinking.prune_and_train.train",
        lambda *_, **__: pytest.fail("nothing is trained"),
    )
    values = {"channels": "0.5x", "sparsity": 0.5, "finetune_epochs": 0}
    place = tmp_path / "run"
    record = compressed(mlp(64, 64, 64), values, blobs, cpu, place)
    assert (record.compressed_name, record.epochs, record.finetuned) == ("m-c0_5x-p50", 0, 0)
    assert "nothing was fine-tuned (0 epochs)" in record.notes
    for part in (record.channels, record.weights):
        assert part is not None
        (before, after), *_ = part["repair"]["output_error"]
        assert after < before
    assert record.channels is not None
    broken = [layer["name"] for layer in record.channels["repair"]["layers"] if layer["before"]]
    assert broken == ["h1", "h2", "head"]
    small = load_model(place / "candidates" / f"{record.compressed_name}.keras")
    middle = small.get_layer("h1").kernel.numpy()
    assert (middle == 0).mean() == pytest.approx(0.5, abs=0.05)
    measure_stage(RunFolder(place), from_flat(Plan, {"latency_budget": 0.2}), ignore_progress)
    page = render_report(place)
    text = (place / "report.html").read_text("utf-8")
    assert "the smaller model was not fine-tuned" in text
    assert "without training" in text
    assert "Behind removed channels: " in text
    assert "Behind removed weights: " in text
    for what in ("channels", "weights"):
        assert f"Errors of layers behind removed {what}" in text
    assert page.compressed[0].finetuned == 0


def test_options_of_a_training_without_one() -> None:
    with pytest.raises(InputError, match="as_long must go with fine-tuning"):
        from_flat(Plan, {"finetune_epochs": 0, "as_long": True})
