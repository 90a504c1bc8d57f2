"""What every runtime must do."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compress.measure.runtimes import RUNTIMES


class RuntimeContract:
    """Inherit, set `name`, and give a fixture `path`: a file that the runtime can run."""

    name: str

    def test_it_describes_itself_with_a_version(self) -> None:
        text = RUNTIMES[self.name].describe()
        assert any(character.isdigit() for character in text)

    def test_sessions_are_independent_and_their_outputs_those_of_any_threads(
        self, path: Path
    ) -> None:
        first, second = (RUNTIMES[self.name].prepare(path, threads) for threads in (1, 2))
        assert all(info.shape[0] == 1 for info in (*first.inputs, *first.outputs))
        rng = np.random.default_rng(0)
        a, b = ([rng.normal(size=i.shape) for i in first.inputs] for _ in range(2))
        first.set_inputs(a)
        second.set_inputs(b)
        first.invoke()
        second.invoke()
        before = [made.copy() for made in first.results()]
        assert [made.shape for made in before] == [info.shape for info in first.outputs]
        for one, other in zip(before, second.results(), strict=True):
            assert np.abs(one - other).max() > 0
        second.set_inputs(a)
        second.invoke()
        for one, other in zip(before, second.results(), strict=True):
            np.testing.assert_allclose(other, one, atol=1e-6)
