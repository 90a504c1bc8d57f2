"""What every search space must do."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest

from compress.data import Dataset
from compress.heads import check_head
from compress.measure import count_macs
from search.spaces import SPACES


def ask(seed: int, fixed: dict[str, Any] | None = None) -> optuna.Trial:
    """Returns a trial of a random study, with `fixed` choices first."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    if fixed:
        study.enqueue_trial(fixed)
    return study.ask()


class SpaceContract:
    """Inherit, set `name`, and give a fixture `data` that the space can serve."""

    name: str

    @pytest.mark.parametrize("seed", range(5))
    def test_every_model_fits_the_data_and_is_counted(self, seed: int, data: Dataset) -> None:
        model = SPACES[self.name].build(ask(seed), data)
        check_head(model, data)
        rows = model(data.inputs("val")[:3], training=False).numpy()
        np.testing.assert_allclose(rows.sum(-1), 1.0, atol=1e-5)
        assert count_macs(model).unsupported == ()

    def test_the_same_choices_give_the_same_model(self, data: Dataset) -> None:
        import keras

        weights = []
        for _ in range(2):
            keras.utils.set_random_seed(1)
            weights.append(SPACES[self.name].build(ask(3), data).get_weights())
        for a, b in zip(*weights, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_the_baseline_is_a_point_of_the_space(self, data: Dataset) -> None:
        fixed = SPACES[self.name].baseline(data)
        trial = ask(0, fixed)
        SPACES[self.name].build(trial, data)
        assert trial.params == fixed

    def test_replayed_choices_give_the_same_costs(self, data: Dataset) -> None:
        first = ask(4)
        model = SPACES[self.name].build(first, data)
        again = SPACES[self.name].build(ask(9, first.params), data)
        assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
        assert count_macs(again).macs == count_macs(model).macs
