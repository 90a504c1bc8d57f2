"""What every search space must do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest

from compress.data import Dataset, Split
from compress.measure import count_macs
from compress.model.heads import check_head
from search.spaces import SPACES, DeclaredSpace, Space
from search.spaces.describe import measure_bounds
from tests.same import same_arrays

SAMPLES = 12


def ask(seed: int, fixed: dict[str, Any] | None = None) -> optuna.Trial:
    """Returns a trial of a random study, with `fixed` choices first."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    if fixed:
        study.enqueue_trial(fixed)
    return study.ask()


def with_shape(data: Dataset, shape: tuple[int, ...]) -> Dataset:
    """Returns `data` with random inputs of another shape."""
    rng = np.random.default_rng(0)

    def part(split: Split) -> Split:
        return Split(rng.integers(0, 256, (len(split), *shape)).astype(np.uint8), split.y)

    parts = {name: part(data.split(name)) for name in ("train", "val", "test")}
    return replace(data, **parts)


def few(data: Dataset) -> Dataset:
    """Returns `data` with as many examples as it has classes: enough to build models for."""
    indices = np.unique(data.train.y, return_index=True)[1]
    parts = {name: data.split(name).take(indices[:10]) for name in ("val", "test")}
    return replace(data, train=data.train.take(indices), **parts)


class SpaceContract:
    """Inherit, set `name` (or give a fixture `space`), and a fixture `data` it can serve."""

    name: str

    @pytest.fixture
    def space(self) -> Space:
        return SPACES[self.name]

    @pytest.mark.parametrize("seed", range(5))
    def test_every_model_fits_the_data_and_is_counted(
        self, seed: int, data: Dataset, space: Space
    ) -> None:
        trial = ask(seed)
        model = space.build(trial, data)
        check_head(model, data)
        known = space.count(trial.params, data)
        counted = count_macs(model)
        assert known in (None, (counted.macs, counted.params))
        rows = model(data.inputs("val")[:3], training=False).numpy()
        np.testing.assert_allclose(rows.sum(-1), 1.0, atol=1e-5)
        assert counted.unsupported == ()

    def test_the_same_choices_give_the_same_model(self, data: Dataset, space: Space) -> None:
        import keras

        weights = []
        for _ in range(2):
            keras.utils.set_random_seed(1)
            weights.append(space.build(ask(3), data).get_weights())
        same_arrays(*weights)

    @pytest.mark.parametrize("which", ["baseline", "smallest", "largest"])
    def test_named_choices_are_points_of_the_space(
        self, which: str, data: Dataset, space: Space
    ) -> None:
        fixed = getattr(space, which)(data)
        trial = ask(0, fixed)
        space.build(trial, data)
        assert trial.params == fixed

    def test_the_ladder_rises_from_the_smallest_to_the_baseline(
        self, data: Dataset, space: Space
    ) -> None:
        top = space.baseline(data)
        assert space.ladder(data, 0) == []
        made = space.ladder(data, 3)
        assert made[0] == space.smallest(data)
        assert 1 <= len(made) <= 3
        assert top not in made
        macs = []
        for fixed in [*made, top]:
            trial = ask(0, fixed)
            macs.append(count_macs(space.build(trial, data)).macs)
            assert trial.params == fixed
        assert macs == sorted(macs)
        assert macs[0] < macs[-1]

    def test_replayed_choices_give_the_same_costs(self, data: Dataset, space: Space) -> None:
        first = ask(4)
        model = space.build(first, data)
        again = space.build(ask(9, first.params), data)
        assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
        assert count_macs(again).macs == count_macs(model).macs

    @pytest.mark.slow
    def test_no_sample_lies_outside_the_bounds(self, data: Dataset, space: Space) -> None:
        assert isinstance(space, DeclaredSpace)
        low, high = measure_bounds(space, data)
        for seed in range(SAMPLES):
            trial = ask(seed)
            costs = count_macs(space.build(trial, data))
            assert low.macs <= costs.macs <= high.macs, trial.params
            assert low.params <= costs.params <= high.params, trial.params

    def test_conditions_name_earlier_choices(self, data: Dataset, space: Space) -> None:
        assert isinstance(space, DeclaredSpace)
        seen: dict[str, tuple[Any, ...]] = {}
        for choice in space.choices(data):
            assert choice.name not in seen
            if choice.when is not None:
                assert set(choice.when[1]) <= set(seen[choice.when[0]])
            assert {choice.least, choice.most} <= set(choice.values)
            seen[choice.name] = choice.values
        assert seen
