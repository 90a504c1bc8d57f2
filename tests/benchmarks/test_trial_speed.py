"""What trial_speed compares: default `fit` is default, tuned `fit` is tuned, all train alike."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import trial_speed
from compress.core.device import Device
from compress.data import Dataset
from search.spaces import SPACES


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_speed, "EPOCHS", 1)


@pytest.mark.slow
def test_what_fit_is_told(
    once: None, digits: Dataset, cpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    told: dict[str, list[dict[str, Any]]] = {"compile": [], "fit": []}
    for name, calls in told.items():
        original = getattr(keras.Model, name)

        def spy(
            self: Any, *words: Any, calls: Any = calls, original: Any = original, **options: Any
        ) -> Any:
            calls.append(options)
            return original(self, *words, **options)

        monkeypatch.setattr(keras.Model, name, spy)
    choices = SPACES["cnn"].smallest(digits)
    found = {way: trial_speed.WAYS[way](choices, digits, cpu) for way in ("fit", "tuned")}
    assert all(0 < accuracy <= 1 for accuracy in found.values())
    default, tuned = told["fit"]
    assert "validation_batch_size" not in default  # 32, as Keras has it
    assert tuned["validation_batch_size"] == 1000
    assert default["batch_size"] == tuned["batch_size"] == 64
    assert "steps_per_execution" not in told["compile"][0]
    assert told["compile"][1]["steps_per_execution"] == 10


def test_every_other_way_has_a_column() -> None:
    assert set(trial_speed.WAYS) == {*trial_speed.OTHERS, "ours"}
    row = {
        "macs": 50_000,
        "seconds": {"fit": [8.0], "tuned": [4.0], "hand": [3.0], "ours": [2.0]},
        "idle": {"fit": [0.25], "ours": [0.0]},
    }
    head, _, cells = trial_speed.seconds({"results": {"small": row}}).splitlines()
    assert "default `fit`" in head
    assert "paretune / tuned `fit`" in head
    assert "| `fit`" not in head
    found = [cell.strip() for cell in cells.strip("|").split("|")]
    assert found[1:5] == ["8.0 s", "4.0 s", "3.0 s", "2.0 s"]
    # 2/8, 2/4, 2/3
    assert [cell.split("x")[0] for cell in found[5:8]] == ["0.25", "0.50", "0.67"]


def test_texts_name_the_fit_they_mean() -> None:
    """A verdict of speed against `fit` says which: default or tuned."""
    from benchmarks._stored import ROOT

    results = ROOT / "docs" / "results"
    text = " ".join((results / "search.md").read_text("utf-8").split())
    assert "Default `fit` gets the batch size and nothing else; tuned `fit`" in text
    assert "by default `fit`" in text  # the other side of the search
    for page in ("index.md", "distillation.md"):
        measured = " ".join((results / page).read_text("utf-8").split())
        for words in measured.split("`fit`")[:-1]:
            assert words.endswith(("default ", "tuned ", "Keras ")), words[-40:]
