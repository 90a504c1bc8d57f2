"""What every log must do: what it was told can be read back, by a reader that is not ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.run.directory import RunFolder
from compress.run.logs import Event, Point, following

Figures = dict[str, list[tuple[int, float]]]
CURVE = Event(
    "candidate 0001",
    "0001",
    tuple(
        Point(step, {"validation/accuracy": 0.1 * step, "training/loss": 1 / step}, 1e9 + step)
        for step in (1, 2, 3)
    ),
    {"width": 8, "kind": "deep", "nothing": None, "flag": True},
    "candidate",
)
MORE = Event("candidate 0002", "0002", (Point(1, {"validation/accuracy": 0.5}),))


class Once:
    """A source of given events."""

    def __init__(self, *events: Event) -> None:
        self._events = list(events)

    def new(self, *, last: bool) -> Any:
        events, self._events = self._events, []
        yield from events


# libraries that log warn of this and that
@pytest.mark.filterwarnings("ignore")
class LogContract:
    """Inherit, set `kind` (in `LOGS`), and read back."""

    kind: str

    def read(self, folder: Path, item: str) -> Figures:
        """Figures of an item by name: (step, value), by the log's own reader."""
        raise NotImplementedError

    @pytest.fixture
    def run(self, tmp_path: Path) -> RunFolder:
        pytest.importorskip(self.kind)
        made = RunFolder(tmp_path / "run")
        made.path.mkdir()
        return made

    def test_figures_are_read_back(self, run: RunFolder) -> None:
        with following([self.kind], run, {"seed": 3}, [Once(CURVE)]):
            (run.path / "report.html").write_text("<p>")
        found = self.read(run.path, "0001")
        for name in ("validation/accuracy", "training/loss"):
            assert [step for step, _ in found[name]] == [1, 2, 3]
            np.testing.assert_allclose(
                [value for _, value in found[name]],
                [point.values[name] for point in CURVE.points],
                rtol=1e-6,
            )

    def test_nothing_is_told_twice(self, run: RunFolder) -> None:
        for events in ((CURVE,), (CURVE, MORE)):
            with following([self.kind], run, {}, [Once(*events)]):
                pass
        assert len(self.read(run.path, "0001")["validation/accuracy"]) == 3
        assert len(self.read(run.path, "0002")["validation/accuracy"]) == 1
