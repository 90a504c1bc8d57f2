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

    def test_sessions_are_independent_and_deterministic(self, path: Path) -> None:
        first, second = (RUNTIMES[self.name].prepare(path, 1) for _ in range(2))
        shape = first.input_shape
        assert shape[0] == 1
        rng = np.random.default_rng(0)
        a, b = rng.normal(size=(2, *shape)).astype(np.float32)
        first.set_input(a)
        second.set_input(b)
        first.invoke()
        second.invoke()
        before = first.output().copy()
        assert np.abs(before - second.output()).max() > 0
        second.set_input(a)
        second.invoke()
        np.testing.assert_allclose(second.output(), before, atol=1e-6)

    def test_threads_do_not_change_the_output(self, path: Path) -> None:
        outputs = []
        for threads in (1, 2):
            session = RUNTIMES[self.name].prepare(path, threads)
            session.set_input(np.ones(session.input_shape, np.float32))
            session.invoke()
            outputs.append(session.output().copy())
        np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)
