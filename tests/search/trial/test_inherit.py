"""Inherited weights: from whom, and which."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from compress.model.io import save_model
from search.folder.directory import SearchFolder
from search.folder.records import Candidate
from search.plan import SearchPlan
from search.trial.weight_inheritance import Donor, inherit, likeness, nearest


def folder_with(path: Path, *items: tuple[str, str, dict[str, object]]) -> SearchFolder:
    folder = SearchFolder(path)
    folder.claim("search", SearchPlan())
    for name, state, choices in items:
        folder.write_candidate(Candidate(name, state, choices, 1))
        if state == "complete":
            folder.model_file(name).write_bytes(b"model")
    return folder


def test_likeness_counts_the_architecture_alone() -> None:
    one = {"stages": 2, "stage1.width": 8, "stage2.width": 16, "batch_size": 32,
           "learning_rate.adam": 0.1}  # fmt: skip
    two = {"stages": 2, "stage1.width": 16, "batch_size": 64, "optimizer": "sgd"}
    # stages agree; width 1 differs; width 2 is asked of one only
    assert likeness(one, two) == pytest.approx(1 / 3)
    assert likeness(one, one) == 1
    assert likeness({"batch_size": 1}, {}) == 1


def test_the_nearest_finished_candidate(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path / "a",
        ("0000", "complete", {"x": 1, "y": 2}),
        ("0001", "stopped", {"x": 1, "y": 1}),
        ("0002", "complete", {"x": 2, "y": 2}),
    )
    other = folder_with(tmp_path / "b", ("0000", "complete", {"x": 1, "y": 1}))
    # 0003 repeats 0000: it has its values, but no model
    finished = {"0000": {"x": 1, "y": 2}, "0002": {"x": 2, "y": 2}, "0003": {"x": 1, "y": 1}}
    found = nearest({"x": 1, "y": 1}, finished, folder, ())
    assert found is not None
    # the stopped one has no model; of 0000 and 0002 the first is more alike
    assert (found.label, found.likeness) == ("0000", 0.5)
    assert found.file == folder.model_file("0000")
    found = nearest({"x": 1, "y": 1}, finished, folder, (str(other.path), "sqlite:///x.db"))
    assert found is not None
    assert (found.label, found.likeness) == (f"{other.path} 0000", 1.0)
    assert nearest({"x": 1}, {}, folder_with(tmp_path / "c"), ()) is None


def test_records_are_not_read_for_each_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_with(tmp_path / "a", ("0000", "complete", {"x": 1}))

    def refuse(self: SearchFolder) -> list[Candidate]:
        raise AssertionError("all records were read")

    monkeypatch.setattr(SearchFolder, "read_candidates", refuse)
    found = nearest({"x": 1}, {"0000": {"x": 1}}, folder, ())
    assert found is not None


def network(width: int) -> keras.Model:
    inputs = keras.Input((4,))
    x = keras.layers.Dense(8, name="first")(inputs)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.Dense(width, name="second")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x))


def test_layers_of_the_same_names_are_taken(tmp_path: Path) -> None:
    source, target = network(5), network(6)
    source.get_layer("bn").moving_mean.assign(np.arange(8.0))
    save_model(source, tmp_path / "source.keras")
    text = inherit(target, Donor("0007", tmp_path / "source.keras", 0.5))
    assert text == "weights of 4 of 4 layers (2 of them widened) inherited from 0007"
    np.testing.assert_array_equal(target.get_layer("first").kernel, source.layers[1].kernel)
    np.testing.assert_array_equal(target.get_layer("bn").moving_mean, np.arange(8.0))
    kernel = target.get_layer("second").kernel.numpy()
    np.testing.assert_array_equal(kernel[:, :5], source.get_layer("second").kernel)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "torn.keras").write_bytes(b"x")
    text = inherit(network(5), Donor("0001", tmp_path / "torn.keras", 1.0))
    assert text.startswith("no weights inherited: ")
