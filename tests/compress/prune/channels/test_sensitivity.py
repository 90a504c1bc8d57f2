"""Sensitivity maps: what they measure, of which model, and that pruning uses them as if new."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from benchmarks.resnet20 import build
from compress.core.errors import FeasibleError, InputError
from compress.data import Dataset
from compress.measure.file_agreement import compute_divergence
from compress.prune.channels import PruneResult, SensitivityMap, prune_channels, sensitivity_map
from tests.compress.prune.channels.law import randomize
from tests.compress.prune.channels.test_pruning import cnn, first_kept

NOT_MEASURED = "output errors are measured anew"


@pytest.fixture(scope="module")
def x() -> Any:
    return np.random.default_rng(0).normal(size=(120, 8, 8, 1)).astype(np.float32)


def same(one: PruneResult, two: PruneResult) -> bool:
    """Tell whether two prunings kept the same, with the same weights and the same report."""
    # of the repair the report holds the seconds too
    reports = [replace(item.report, repair=None) for item in (one, two)]
    return reports[0] == reports[1] and all(
        np.array_equal(a.numpy(), b.numpy())
        for a, b in zip(one.model.weights, two.model.weights, strict=True)
    )


def test_output_errors_by_hand() -> None:
    """Of a hidden layer, whose only reader is reconstructed in closed form."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)).astype(np.float32)
    inputs = keras.Input((6,))
    hidden = layers.Dense(12, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="last")(hidden))
    randomize(model, rng)
    (group,) = sensitivity_map(model, x).groups
    assert (group.name, group.removed) == ("hidden", (3, 6, 8, 9, 10))
    w, wb, v, vb = (weight.numpy().astype(np.float64) for weight in model.weights)
    rows = np.maximum(x @ w + wb, 0)
    centred = rows - rows.mean(0)
    covariance = centred.T @ centred / len(x)
    diagonal = np.diag(covariance)
    regular = covariance + np.diag(1e-3 * diagonal + 1e-9 * diagonal.max())
    # the first half of the examples that are drawn is held back
    judged = np.random.default_rng(0).permutation(len(x))[:100]
    for removed, error in zip(group.removed, group.output_error, strict=True):
        kept = np.sort(np.argsort(group.scores, kind="stable")[removed:])
        solved = np.zeros_like(v)
        solved[kept] = np.linalg.solve(regular[np.ix_(kept, kept)], (regular @ v)[kept])
        logits = (rows @ solved + vb + rows.mean(0) @ (v - solved))[judged]
        made = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        assert error == pytest.approx(
            compute_divergence([np.asarray(model(x[judged]))], [made]), rel=1e-3
        )


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({}, (0.5,)),
        ({"scope": "output_error"}, (0.6, 0.4)),
        ({"blocks": True}, (0.5,)),
        ({"scope": "output_error", "criterion": "l1"}, (0.5,)),
    ],
    ids=["auto", "output error", "blocks", "l1"],
)
@pytest.mark.slow
def test_pruning_by_a_map_is_that_of_measuring_anew(
    settings: dict[str, Any],
    shares: tuple[float, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 12, 12, 1)).astype(np.float32)
    model = build((8, 12), (12, 12, 1), classes=4, blocks=1)
    how = {"round_to": 2, "tries": 2, "data": x, "seed": 1, **settings}
    anew = {share: prune_channels(model, macs=share, **how) for share in shares}
    own = {key: settings[key] for key in ("criterion",) if key in settings}
    # blocks that were measured do no harm where all stay
    measured = sensitivity_map(model, x, blocks=True, seed=1, **own)
    measured.save(tmp_path / "map.json")
    assert SensitivityMap.load(tmp_path / "map.json") == measured
    name = "compress.prune.channels.selection.selector.measure_sensitivity"
    monkeypatch.setattr(name, lambda *_, **__: pytest.fail(NOT_MEASURED))
    for share, expected in anew.items():
        read = SensitivityMap.load(tmp_path / "map.json")
        assert same(prune_channels(model, macs=share, sensitivity=read, **how), expected)


@pytest.mark.slow
def test_a_map_is_used_where_measuring_would_take_too_long(
    x: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cnn(16)
    measured = sensitivity_map(model, x)
    monkeypatch.setattr("compress.prune.channels.selection.selector.LONGEST", 0.0)
    assert prune_channels(model, macs=0.5, data=x).report.criterion == "l2 over all layers"
    found = prune_channels(model, macs=0.5, data=x, sensitivity=measured).report
    assert any(note.startswith("divergence from the original on") for note in found.notes)


def test_it_prints_a_screen(x: Any) -> None:
    measured = sensitivity_map(cnn(16), x, blocks=True)
    text = str(measured)
    assert text.startswith("output errors of 3 groups, 1 blocks\n")
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["Layer"] == [
        "Layer", "channels", "75", "%", "50", "%", "37.5", "%", "25", "%", "12.5", "%", "removed"
    ]  # fmt: skip
    assert lines["hidden"][1:3] == ["32", f"{max(0.0, measured.groups[2].output_error[0]):.2g}"]
    assert lines["sum"] == ["sum", f"{measured.blocks[0].output_error:.2g}"]


def test_sensitive_groups_keep_more(x: Any) -> None:
    model = cnn(16)
    measured = sensitivity_map(model, x)
    kept = {}
    for fragile in range(2):
        factors = np.where(np.arange(3) == fragile, 1e3, 1.0)
        sensitivity = measured.scale(factors, np.ones(0))
        how = {"data": x, "scope": "output_error", "tries": 0, "round_to": 1}
        report = prune_channels(model, macs=0.5, sensitivity=sensitivity, **how).report
        kept[fragile] = [row.kept for row in report.groups]
    assert kept[0][0] > kept[1][0]
    assert kept[1][1] > kept[0][1]


def test_a_map_of_something_else_is_refused(x: Any) -> None:
    """Same names, same shapes: only the weights tell two models apart."""
    model, other = cnn(16), cnn(16)
    kernel = other.get_layer("inner").kernel
    kernel.assign(kernel.numpy() * 2.0)
    measured = sensitivity_map(model, x)

    def refused(message: str, model: Any = model, **changes: Any) -> None:
        how = {"data": x, "scope": "output_error", **changes}
        with pytest.raises(InputError, match=message):
            prune_channels(model, macs=0.5, sensitivity=measured, **how)

    refused("Received: model [0-9a-f]+ instead of [0-9a-f]+. Measure it anew with sensi", other)
    refused("Received: examples [0-9a-f]+ instead of", data=x[:100])
    refused("Received: criterion reconstruction instead of l1.", criterion="l1")
    refused("Received: blocks False instead of True.", blocks=True)
    refused("seed 0 instead of 3.", seed=3)
    refused(
        "sensitivity must go with scope output_error, .* a choice by scope layer", scope="layer"
    )
    for changes in ({"data": None}, {"repair": False}, {"criterion": "l2"}):
        refused("sensitivity must go with scope output_error, or with", scope="auto", **changes)
    refused("must have data to look at", data=None)


def test_labels_and_scaling_are_part_of_the_examples(digits: Dataset) -> None:
    model = cnn(16)
    measured = sensitivity_map(model, digits, criterion="taylor")
    how = {"criterion": "taylor", "scope": "output_error", "sensitivity": measured, "tries": 0}
    prune_channels(model, macs=0.5, data=digits, **how)
    y = np.roll(digits.train.y, 1)
    with pytest.raises(InputError, match="Received: examples"):
        prune_channels(model, macs=0.5, data=(digits.train.x, y), **how)


def test_a_criterion_of_ones_own(x: Any) -> None:
    model = cnn(16)
    measured = sensitivity_map(model, x, criterion=first_kept)
    assert measured.origin["criterion"] == "first_kept"
    assert measured.groups[0].scores == tuple(range(16, 0, -1))
    how = {"data": x, "scope": "output_error", "tries": 0, "sensitivity": measured}
    prune_channels(model, macs=0.5, criterion=first_kept, **how)
    with pytest.raises(InputError, match="criterion first_kept instead of reconstruction"):
        prune_channels(model, macs=0.5, **how)


def test_what_cannot_be_measured_is_refused(x: Any) -> None:
    with pytest.raises(InputError, match="data must hold labels here"):
        sensitivity_map(cnn(16), x, criterion="taylor")
    inputs = keras.Input((4,))
    bare = keras.Model(inputs, layers.Dense(3)(inputs))
    with pytest.raises(FeasibleError, match="must have channels that can be removed"):
        sensitivity_map(bare, np.zeros((40, 4), np.float32))


def _without_scores(record: dict[str, Any]) -> None:
    del record["groups"][0]["scores"]


def _of_version_one(record: dict[str, Any]) -> None:
    row = {"name": "hidden", "units": 8, "amounts": [0.5], "accuracy": [0.8]}
    record |= {"base": 0.9, "examples": 64, "criterion": "l2", "groups": [row]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_scores, r"must be a file written by save\(\). Received: '.*' \('scores'\)"),
        (_of_version_one, "which version 0.1 measured as accuracies. Measure it anew with sensi"),
    ],
)
def test_files_that_hold_something_else(
    change: Callable[[dict[str, Any]], None], message: str, x: Any, tmp_path: Path
) -> None:
    path = tmp_path / "map.json"
    sensitivity_map(cnn(16), x).save(path)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=message):
        SensitivityMap.load(path)
