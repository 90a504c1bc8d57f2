"""Docstrings of everything public: their sections, and their examples, which run."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import paretune

FUNCTIONS = [
    name
    for name in paretune.__all__
    if inspect.isfunction(getattr(paretune, name)) or name == "WeightPruner"
]
LONG = ("bench", "compress_model", "import_latency_table", "run", "run_search")
"""Worker processes, which import TensorFlow again, or a whole compression."""
DATA = ("as_dataset", "compress_model", "distill", "export", "load_data", "prune_channels",
        "prune_weights", "recalibrate", "run", "sensitivity_map")  # fmt: skip
"""Those that take or give examples: their docstrings tell shapes."""


@pytest.mark.parametrize("name", paretune.__all__)
def test_everything_public_says_what_it_is(name: str) -> None:
    thing = getattr(paretune, name)
    if isinstance(thing, str):
        return
    text = inspect.getdoc(thing) or ""
    assert text, name
    if inspect.isfunction(thing):
        wanted = ["Args", "Returns" if thing.__annotations__["return"] != "None" else "Args"]
        wanted += ["Raises", "Example", *(["Shapes"] if name in DATA else [])]
        missing = [head for head in wanted if not re.search(rf"^{head}:$", text, re.M)]
        assert not missing, (name, missing)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in FUNCTIONS],
)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example has a small model, a smaller one, arrays and an empty folder to begin with."""
    import keras

    monkeypatch.chdir(tmp_path)
    thing = getattr(paretune, name)
    found = doctest.DocTestFinder(recurse=False).find(thing, name, globs=_names(keras, tmp_path))
    tests = [test for test in found if test.examples]
    assert tests, f"{name} must have an example"
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in tests:
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def _names(keras: Any, folder: Path) -> dict[str, Any]:
    def small(width: int, name: str) -> Any:
        return keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(width, activation="relu", name="hidden"),
                keras.layers.Dense(3, activation="softmax", name="last"),
            ],
            name=name,
        )

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    y = np.arange(100) % 3
    x = (3 * np.eye(3, 4)[y] + rng.normal(size=(100, 4))).astype(np.float32)
    model = small(16, "model")
    model.save(folder / "model.keras")
    return {
        **{name: getattr(paretune, name) for name in paretune.__all__},
        "keras": keras, "model": model, "student": small(8, "student"), "x": x, "y": y,
        "folder": folder,
    }  # fmt: skip
