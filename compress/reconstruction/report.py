"""What a repair did: one row a layer, before and after."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from compress.core.summary import Readable, Summary

REPAIRED = "repaired"
KEPT = "kept"
LEFT = "left"


@dataclass(frozen=True)
class LayerRepair:
    """One kernel of one layer.

    Attributes:
        name: Of the layer, behind those of the models it is nested in; with ":depthwise" where
            it has several kernels.
        kind: Class name.
        state: "repaired"; "kept": the solution was no better on examples held back, and the
            weights stay as they were; "left": it was not solved for, see `reason`.
        before, after: Error relative to the spread of what the dense model computes there, on
            examples held back: sum of squares over sum of squares. None where it was left.
        target: "own" output; "sum": the output of the addition that it feeds; "scores": of an
            attention, its queries and keys together.
        ridge: That was chosen; None where it was left.
        rows: Positions that were looked at.
        seconds: That it took.
        reason: Why it was kept or left.
        together: The layer in front, where both kernels were solved together too.
    """

    name: str
    kind: str
    state: str
    before: float | None = None
    after: float | None = None
    target: str = "own"
    ridge: float | None = None
    rows: int = 0
    seconds: float = 0.0
    reason: str = ""
    together: str = ""


@dataclass(frozen=True, repr=False)
class RepairReport(Readable):
    """The record of a repair.

    Attributes:
        layers: In the order in which they were solved.
        examples: Used, those held back among them.
        held_back: Of them.
        seconds: In all.
        output_error: Error of the model's outputs relative to the spread of the dense model's,
            on examples held back: (before, after); one pair an output.
        notes: What the user should know.
    """

    layers: tuple[LayerRepair, ...]
    examples: int
    held_back: int
    seconds: float
    output_error: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def repaired(self) -> int:
        """Layers whose weights were solved for."""
        return sum(layer.state == REPAIRED for layer in self.layers)

    def line(self) -> str:
        """Return the result in one line."""
        ends = ", ".join(f"{_error(a)} -> {_error(b)}" for a, b in self.output_error)
        return (
            f"{self.repaired} of {len(self.layers)} layers repaired on {self.examples:,} examples "
            f"in {self.seconds:.0f} s; error of outputs, held back: {ends or 'not comparable'}"
        )

    def screen(self) -> Summary:
        """Return what is worth a screen."""
        rows = [
            (
                layer.name,
                layer.kind,
                _error(layer.before),
                _error(layer.after),
                layer.state if layer.state != REPAIRED else layer.target,
            )
            for layer in self.layers
        ]
        lines = [
            f"{self.examples:,} unlabelled examples ({self.held_back:,} held back), "
            f"{self.seconds:.1f} s; errors relative to the dense model's spread, measured on "
            "examples held back"
        ]
        lines += [
            f"output {_error(before)} -> {_error(after)}" for before, after in self.output_error
        ]
        left = [f"{item.name}: {item.reason}" for item in self.layers if item.reason]
        return Summary(
            f"{self.repaired} of {len(self.layers)} layers repaired",
            tuple(lines),
            ("Layer", "kind", "before", "after", "target"),
            tuple(rows),
            (*self.notes, *left),
            "layers",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON."""
        return asdict(self)


def explain_kept(before: float, after: float) -> str:
    """Return why a layer kept its weights, of its errors on examples held back."""
    if before == 0:
        return "nothing is broken in front of it"
    return f"solved, its error on examples held back would be {after:.3g} instead of {before:.3g}"


def repair_of(record: dict[str, Any]) -> RepairReport:
    """Return the report that `to_json` wrote."""
    # keys of other versions are left out
    names = {item.name for item in fields(LayerRepair)}
    layers = ({name: layer[name] for name in layer if name in names} for layer in record["layers"])
    return RepairReport(
        tuple(LayerRepair(**layer) for layer in layers),
        record["examples"],
        record["held_back"],
        record["seconds"],
        tuple((before, after) for before, after in record["output_error"]),
        tuple(record["notes"]),
    )


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if value >= 1e-4 else f"{value:.1e}"
