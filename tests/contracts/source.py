"""What every source of data must do."""

from __future__ import annotations

import numpy as np
import pytest

from compress.data import Dataset, load_data


class SourceContract:
    """Inherit, and give a fixture `source`: what `--data` takes.

    Set `has_test` where it brings a test part.
    """

    has_test = False
    task = "multiclass"

    @pytest.fixture
    def data(self, source: str) -> Dataset:
        return load_data(source, task=self.task)

    def test_it_has_three_parts_that_fit_each_other(self, data: Dataset) -> None:
        parts = [data.split(name) for name in ("train", "val", "test")]
        for part in parts:
            assert len(part.x) == len(part.y) > 0
            assert part.x.shape[1:] == data.input_shape
            assert part.x.dtype == parts[0].x.dtype
            if self.task == "multiclass":
                assert set(np.unique(part.y)) <= set(range(data.num_classes))
        assert len(data.class_names) == data.num_classes

    def test_what_a_model_is_fed_is_scaled(self, data: Dataset) -> None:
        fed = data.inputs("train")
        assert fed.dtype == np.float32
        assert np.isfinite(fed).all()
        # standardized: over all examples and positions of each channel
        axes = tuple(range(fed.ndim - 1))
        np.testing.assert_allclose(fed.mean(axes, np.float64), 0.0, atol=1e-3)

    def test_it_gives_the_same_again(self, source: str, data: Dataset) -> None:
        again, other = load_data(source, task=self.task), load_data(source, task=self.task, seed=1)
        assert again.fingerprint() == data.fingerprint()
        same = np.array_equal(other.test.x, data.test.x)
        assert same is self.has_test, "only what is split off depends on the seed"
        total = [sum(len(one.split(name)) for name in ("train", "val", "test"))
                 for one in (data, other)]  # fmt: skip
        assert total[0] == total[1]
