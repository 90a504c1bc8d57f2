"""Descriptions of spaces: sizes counted and estimated, costs, the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from optuna import distributions
from typer.testing import CliRunner

from compress.core.errors import InputError
from compress.data import Dataset
from compress.measure import count_macs
from search.cli import app
from search.samplers._base import count_values
from search.spaces import SPACES, DeclaredSpace, resolve_space
from search.spaces._base import (
    Choice,
    ask_choices,
    declare_categorical,
    declare_float,
    declare_int,
    interpolate_choices,
)
from search.spaces.cnn import CNN
from search.spaces.describe import Sample, count_choices, describe_space, estimate_size
from tests.contracts.space import ask, few, with_shape

OWN = "tests.search.spaces.own"


class Scripted:
    """Answers with given values, then with the first of each: a path through the tree."""

    def __init__(self, path: list[int]) -> None:
        self.path, self.degrees = path, list[int]()

    def suggest_categorical(self, name: str, values: tuple[Any, ...]) -> Any:
        at = len(self.degrees)
        self.degrees.append(len(values))
        return values[self.path[at] if at < len(self.path) else 0]

    def suggest_int(self, name: str, low: int, high: int) -> Any:
        return self.suggest_categorical(name, tuple(range(low, high + 1)))

    def suggest_float(self, name: str, low: float, high: float, step: float) -> Any:
        size = round((high - low) / step) + 1
        return self.suggest_categorical(name, tuple(low + step * index for index in range(size)))


def leaves(choices: tuple[Choice, ...]) -> set[tuple[tuple[str, Any], ...]]:
    """Walks the tree of all answers: an oracle for `count_choices`."""
    found = set()
    path: list[int] | None = []
    while path is not None:
        trial = Scripted(path)
        found.add(tuple(ask_choices(trial, choices).items()))  # type: ignore[arg-type]
        full = path + [0] * (len(trial.degrees) - len(path))
        while full and full[-1] + 1 == trial.degrees[len(full) - 1]:
            full.pop()
        path = [*full[:-1], full[-1] + 1] if full else None
    return found


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_count_equals_a_walk_over_all_choices(name: str, digits: Dataset) -> None:
    space = SPACES[name]
    assert isinstance(space, DeclaredSpace)
    choices = space.choices(digits)
    assert len(leaves(choices)) == count_choices(choices)


def test_between_by_hand() -> None:
    choices = (
        declare_int("stages", 1, 3),
        declare_categorical("kind", ("plain", "thin"), least="thin", most="plain"),
        declare_categorical("width", (8, 16, 24, 32, 64), ("stages", (2, 3))),
        declare_categorical("stride", (1, 2), least=2, most=1),
        declare_categorical("shortcut", (False, True)),
        declare_float("dropout", 0.4, 0.1),
    )
    least = {"stages": 1, "kind": "thin", "stride": 2, "shortcut": False, "dropout": 0.0}
    top = {**least, "stages": 3, "kind": "plain", "width": 32, "stride": 1, "shortcut": True}
    assert interpolate_choices(choices, top, 0) == least
    # stages 1 place on, width 1.5 and stride 0.5 places, to the even 2 and 0; kinds and paths,
    # which are no numbers, stay
    assert interpolate_choices(choices, top, 0.5) == {
        **least,
        "stages": 2,
        "width": 24,
        "stride": 2,
    }
    assert interpolate_choices(choices, top, 0.75) == {
        **least,
        "stages": 3,
        "width": 24,
        "stride": 1,
    }
    assert interpolate_choices(choices, top, 1) == top
    # what the other has no value for stays at its least
    assert interpolate_choices(choices, {"stages": 2}, 1) == {**least, "stages": 2, "width": 8}


def test_count_by_hand() -> None:
    choices = (
        declare_int("stages", 1, 2),
        declare_categorical("kind", ("a", "b"), ("stages", (2,)), least="a", most="b"),
        declare_categorical("kernel", (3, 5, 7), ("kind", ("b",))),
        declare_float("dropout", 0.4, 0.1),
    )
    assert count_choices(choices) == (1 + (1 + 3)) * 5


def test_estimate_agrees_with_the_count(digits: Dataset) -> None:
    choices = CNN().choices(digits)
    samples = []
    for seed in range(400):
        trial = ask(seed)
        ask_choices(trial, choices)
        samples.append(Sample(trial.params, trial.distributions, 1, 1, False, ""))
    number, error = estimate_size(samples)
    assert number is not None
    assert 0 < error < 0.1 * number
    assert abs(number - count_choices(choices)) < 4 * error


def test_cardinalities() -> None:
    sizes = [
        (distributions.IntDistribution(8, 64, step=8), 8),
        (distributions.IntDistribution(3, 3), 1),
        (distributions.FloatDistribution(0.0, 0.4, step=0.1), 5),
        (distributions.CategoricalDistribution(("a", "b")), 2),
        (distributions.FloatDistribution(0.1, 1.0, log=True), float("inf")),
    ]
    for distribution, size in sizes:
        assert count_values(distribution) == size


def test_a_built_in_space_is_exact(digits: Dataset) -> None:
    cnn = CNN()
    found = describe_space(cnn, digits)
    assert (found.architectures, found.error, found.bounds_of) == (22_320, None, 0)
    # smallest: 8 channels once, depthwise 3 x 3, pointwise
    assert found.macs[0] == 64 * (9 * 8 + 9 * 8 + 8 * 8) + 8 * 10
    assert found.is_baseline
    assert found.example.chosen == cnn.baseline(digits)
    conditions = {item.name: item.condition for item in found.parameters}
    assert conditions["stage1.width"] == ""
    assert conditions["stage2.width"] == "stages = 2"
    assert conditions["stage2.kernel"] == "stage2.kind = separable"
    colour = describe_space(cnn, with_shape(few(digits), (28, 28, 3)))
    assert {item.name: item.condition for item in colour.parameters}["stage2.kind"] == "stages >= 2"


def test_own_space_is_sampled(blobs: Dataset) -> None:
    space = resolve_space(f"{OWN}:build")
    found = describe_space(space, blobs, samples=12)
    assert found.bounds_of == 13
    assert found.architectures is not None
    assert found.error is not None
    assert abs(found.architectures - (8 + 64)) < 4 * found.error
    assert found.is_baseline
    assert found.example.macs == 4 * 24 + 24 * 3
    conditions = {item.name: item.condition for item in found.parameters}
    assert list(conditions) == ["depth", "width1", "width2"]
    assert conditions["width1"] == ""
    assert conditions["width2"].startswith("depth = 2 (")
    assert found == describe_space(space, blobs, samples=12)


def test_failing_samples_and_continuous_parameters(blobs: Dataset) -> None:
    found = describe_space(resolve_space(f"{OWN}:sometimes"), blobs, samples=12)
    assert found.architectures is None
    assert 0 < len(found.failures) < 12
    assert found.failures[0] == "ArithmeticError: not today"
    assert found.bounds_of == 13 - len(found.failures)


def test_a_space_without_models_is_refused(blobs: Dataset) -> None:
    with pytest.raises(InputError, match=r"must give models. Received: .* must return a keras"):
        describe_space(resolve_space(f"{OWN}:number"), blobs, samples=2)
    with pytest.raises(InputError, match="samples must be at least 1. Received: 0"):
        describe_space(CNN(), blobs, samples=0)
    with pytest.raises(InputError, match="Space 'cnn' must have images"):
        describe_space(CNN(), blobs)


def test_command(tmp_path: Path, digits: Dataset) -> None:
    file = tmp_path / "space.json"
    done = CliRunner().invoke(app, ["space", "describe", "mlp", "--out", str(file)])
    assert done.exit_code == 0, done.output
    for words in (
        "Space mlp, for digits (8 x 8 x 1)",
        "Architectures: 167,508 (complete choices, counted)",
        "MACs: 1.18 k to 824 k\n",
        "Example (baseline): 25.9 k MACs",
        "layers >= 2",
    ):
        assert words in done.output
    record = json.loads(file.read_text())
    mlp = SPACES["mlp"]
    model = mlp.build(ask(0, mlp.smallest(digits)), digits)
    assert record["macs"][0] == count_macs(model).macs
    assert record["parameters"][0] == {
        "name": "layers",
        "condition": "",
        "distribution": {
            "name": "IntDistribution",
            "attributes": {"low": 1, "high": 4, "step": 1, "log": False},
        },
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnn"], "Unknown space 'rnn'. Did you mean 'cnn'? Choices: cnn, mlp, mobilenet, resnet."),
        (["cnn", "--data", "nowhere"], "data must be a path that exists"),
        (["cnn", "--task", "ranking"], "Unknown task 'ranking'"),
        ([f"{OWN}:number", "--samples", "1"], "Received: int."),
    ],
)
def test_bad_input_is_one_line(words: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["space", "describe", *words])
    assert done.exit_code == 2
    assert done.stderr.startswith("paretune: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
