"""A search where the system has no forks: workers are processes that do every job themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compress.core.platform import CHOICE, NAMES
from tests.search.test_run import paretune, records

OWN = """
import os, signal

def build(trial, data):
    import keras

    width = trial.suggest_categorical("width", (4, 8, 12))
    if width == 8:
        os.kill(os.getpid(), signal.SIGABRT)
    inputs = keras.Input(data.input_shape)
    x = keras.layers.Dense(width, activation="relu")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(data.num_classes)(x))
"""
# clocks, and the CPU's name, which Linux alone tells
UNLIKE = ("seconds", "ended", "history", "device")


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    losses = [epoch["loss"] for epoch in record["history"]]
    return {key: value for key, value in record.items() if key not in UNLIKE} | {"losses": losses}


@pytest.mark.slow
def test_both_ways_find_the_same_and_survive_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trials are trained, and one kills its worker; then the front is compressed."""
    (tmp_path / "own.py").write_text(OWN)
    found = []
    for name in NAMES:
        monkeypatch.setenv(CHOICE, name)
        done = paretune(
            "run", "--space", "own:build", "--sampler", "grid", "--trials", 3, "--epochs", 1,
            "--finetune-epochs", 1, "--workers", 1, "--threads", 1, "--formats", "int8",
            "--latency-budget", 0.2, "--stopping", "none", "--out", name, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append({number: timeless(item) for number, item in records(tmp_path / name).items()})
        assert list((tmp_path / name / "exports").glob("*.int8.tflite"))
    assert found[0] == found[1]
    ends = {item["choices"]["width"]: (item["state"], item["reason"]) for item in found[1].values()}
    assert ends == {
        4: ("complete", ""),
        8: ("failed", "its worker died (signal SIGABRT)"),
        12: ("complete", ""),
    }
