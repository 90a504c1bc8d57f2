"""What a report may show beside a compression: sections, handed in by whoever knows of more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from rich.console import RenderableType

from compress.measure.verdict import Outcome
from compress.report.terminal import said

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from compress.measure.verdict import Verdict
    from compress.report.live.charts import Chart, Points


@dataclass(frozen=True)
class Tile:
    """A figure in large letters.

    Attributes:
        figure: "12", "97.2 % [96.1, 98.0]".
        label: What it is, below it.
    """

    figure: str
    label: str


@dataclass(frozen=True)
class Known:
    """What a section knows of a model that was compressed.

    Attributes:
        epochs: For how many it was trained before; None: it does not know.
        choices: What the model was made of, in one line.
        commands: What repeats its making, each under a line that says so.
    """

    epochs: int | None = None
    choices: str = ""
    commands: tuple[str, ...] = ()


class Section:
    """One part of a report beside the compression; what is not overridden adds nothing.

    Attributes:
        front: Names of the models that no other is better than, in order: their files are marked.
        validation_learnt: Whether models have learnt the validation part: then it chooses nothing.
        judged: What beside exported files was judged by test data ("final trainings").
        devices: On what models were trained.
        shipped: Id of the file that a goal has chosen to be shipped.
        shipped_file: Where it lies ready to be used, in the run's folder.
        verdict: That file beside the original, on test data; None: not on record.
    """

    front: tuple[str, ...] = ()
    validation_learnt: bool = False
    judged: str = ""
    devices: tuple[str, ...] = ()
    shipped: str = ""
    shipped_file: str = ""
    verdict: Verdict | None = None

    def known(self, model: str) -> Known:
        """Returns what is known of a model that was compressed."""
        return Known()

    def warnings(self) -> list[str]:
        """Returns what nobody may overlook, in sentences."""
        return []

    def to_json(self) -> dict[str, Any]:
        """Returns keys of report.json."""
        return {}

    def csv_rows(self, quality: str) -> list[dict[str, Any]]:
        """Returns lines of candidates.csv; see `compress.report.columns`.

        Args:
            quality: The main one.
        """
        return []

    def tables(self) -> list[RenderableType]:
        """Returns what stands on the terminal before the files."""
        return []

    def tiles(self) -> list[Tile]:
        """Returns tiles, which stand first."""
        return []

    def points(self) -> Sequence[Points]:
        """Returns sets of points that the live page explores, beside the files."""
        return ()

    def charts(self) -> Sequence[Chart]:
        """Return charts of the live page."""
        return ()

    def panels(self) -> Sequence[Callable[[Axes], None]]:
        """Return what draws panels of `pareto.png`, which stand first."""
        return ()

    def above(self) -> Markup:
        """Returns what stands on the page before the files."""
        return Markup()

    def below(self) -> Markup:
        """Returns what stands on the page behind the models."""
        return Markup()


class GoalSection(Section):
    """What a goal adds to a report.

    Args:
        outcome: What came of it.
    """

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self.shipped, self.shipped_file = outcome.chosen, outcome.file
        self.verdict = outcome.verdict

    def to_json(self) -> dict[str, Any]:
        """See `Section.to_json`."""
        return {"goal": self._outcome.to_json()}

    def tables(self) -> list[RenderableType]:
        """See `Section.tables`."""
        return [said(text) for text in (self._outcome.title, *self._outcome.lines)]

    def tiles(self) -> list[Tile]:
        """See `Section.tiles`."""
        found = self._outcome
        head = found.title.partition(":")[0]
        return [Tile(head[:1].upper() + head[1:], f"{'; '.join(found.lines)}. Ship {found.file}")]
