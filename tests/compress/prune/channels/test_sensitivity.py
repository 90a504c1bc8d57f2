"""Sensitivity maps: what they measure, of which model, and what pruning makes of them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from compress.core.errors import InputError
from compress.data import Dataset
from compress.prune.channels import (
    MapOrigin,
    SensitivityMap,
    prune_channels,
    sensitivity_map,
)
from tests.compress.prune.channels.law import outputs_of
from tests.compress.prune.channels.test_pruning import cnn, first_kept


def test_sensitivity_map(tmp_path: Path, digits: Dataset) -> None:
    model = cnn(16)
    measured = sensitivity_map(model, digits, amounts=(0.5,), examples=64)
    assert [group.name for group in measured.groups] == ["stem", "inner", "hidden"]
    measured.save(tmp_path / "map.json")
    assert SensitivityMap.load(tmp_path / "map.json") == measured
    # by hand: the whole of the accuracy lost by zeroing the lower half of "inner"
    result = prune_channels(model, amount=0.5, exclude=("stem", "hidden"), round_to=1)
    order = np.sort(np.random.default_rng(0).permutation(len(digits.val))[:64])
    scores = outputs_of(result.model, digits.preprocess(digits.val.x[order]))[0]
    expected = float(np.mean(scores.argmax(1) == digits.val.y[order]))
    assert measured.groups[1].accuracy == (expected,)
    prune_channels(model, macs=0.4, sensitivity=measured)
    with pytest.raises(InputError, match="must belong to the model"):
        prune_channels(cnn(24), macs=0.5, sensitivity=measured)


def test_sensitive_groups_keep_more(digits: Dataset) -> None:
    from compress.prune.channels.selection.sensitivity import GroupSensitivity

    origin = MapOrigin.of(cnn(), digits)
    names = (("stem", 64), ("inner", 64), ("hidden", 128))

    def measured(fragile: str) -> SensitivityMap:
        groups = tuple(
            GroupSensitivity(name, units, (0.5,), (0.2 if name == fragile else 0.89,))
            for name, units in names
        )
        return SensitivityMap(0.9, 64, "l2", groups, origin)

    kept = {
        fragile: {
            row.name: row.kept
            for row in prune_channels(cnn(), macs=0.5, sensitivity=measured(fragile)).report.groups
        }
        for fragile in ("stem", "inner")
    }
    assert kept["stem"]["stem"] > kept["inner"]["stem"]
    assert kept["inner"]["inner"] > kept["stem"]["inner"]


def test_a_sensitivity_map_of_something_else_is_refused(tmp_path: Path, digits: Dataset) -> None:
    """Same names, same shapes: only the weights tell two models apart."""
    model, other = cnn(16), cnn(16)
    kernel = other.get_layer("inner").kernel
    kernel.assign(kernel.numpy() * 2.0)
    measured = sensitivity_map(model, digits, amounts=(0.5,), examples=16)
    prune_channels(model, macs=0.5, sensitivity=measured, data=digits)
    with pytest.raises(InputError, match="Received: weights [0-9a-f]+ instead of"):
        prune_channels(other, macs=0.5, sensitivity=measured)
    with pytest.raises(InputError, match="Received: criterion l2 instead of l1"):
        prune_channels(model, macs=0.5, sensitivity=measured, criterion="l1")
    halves = replace(digits, val=digits.val.take(np.arange(20)))
    with pytest.raises(InputError, match="Received: data [0-9a-f]+ instead of"):
        prune_channels(model, macs=0.5, sensitivity=measured, data=halves)
    # as the first release wrote them
    record = json.loads(json.dumps(asdict(measured)))
    del record["origin"]
    (tmp_path / "old.json").write_text(json.dumps(record))
    old = SensitivityMap.load(tmp_path / "old.json")
    with pytest.raises(InputError, match="records nothing about weights"):
        prune_channels(model, macs=0.5, sensitivity=old)


def test_a_sensitivity_map_by_a_criterion_of_ones_own(digits: Dataset) -> None:
    model = cnn(16)
    measured = sensitivity_map(model, digits, amounts=(0.5,), criterion=first_kept, examples=16)
    assert measured.criterion == "first_kept"
    prune_channels(model, macs=0.5, sensitivity=measured, criterion=first_kept)
    with pytest.raises(InputError, match="criterion first_kept instead of l2"):
        prune_channels(model, macs=0.5, sensitivity=measured)
