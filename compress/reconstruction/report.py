"""Report of a repair: one row per kernel, with errors before and after."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from compress.core.registry import build_renamed_getattr
from compress.core.summary import DisplayableResult, Summary

REPAIRED = "repaired"
KEPT = "kept"
SKIPPED = "left"


@dataclass(frozen=True)
class LayerRepair:
    """Report row of one kernel of a layer.

    Attributes:
        name: Path of the layer, with ":depthwise" or another part name if it has several kernels.
        kind: Class name.
        state: "repaired"; "kept": the solution had no lower held-out error, so the weights are
            unchanged, or rounded to the nearest values if the kernel has a quantization grid;
            "left": not reconstructed, see `reason`.
        before, after: Held-out error relative to the spread of the original model's outputs there:
            sum of squared errors over sum of squared deviations, the mean over the calls of the
            layer. With a quantization grid, `before` is the error of rounding to the nearest
            values. Equal if the state is "kept", None if it is "left".
        target: "own": the layer's output; "sum": the output of the addition that it feeds;
            "scores": the attention scores, for queries and keys jointly.
        ridge: Selected ridge; None if the state is "left".
        rows: Number of sampled positions.
        reason: Reason for the state "kept" or "left".
        together: Name of the preceding layer, if both kernels were also reconstructed jointly.
    """

    name: str
    kind: str
    state: str
    before: float | None = None
    after: float | None = None
    target: str = "own"
    ridge: float | None = None
    rows: int = 0
    reason: str = ""
    together: str = ""


@dataclass(frozen=True, repr=False)
class RepairReport(DisplayableResult):
    """Report of a repair.

    Attributes:
        layers: Rows in the order of reconstruction, then those of the layers left out.
        examples: Number of examples used, including the held-out ones.
        held_back: Number of held-out examples.
        seconds: Total time.
        output_error: Held-out error of the model's outputs relative to the spread of the original
            model's: (before, after), one pair per output.
    """

    if not TYPE_CHECKING:  # a type checker must refuse unknown attributes
        __getattr__ = build_renamed_getattr({"line": "summarize", "screen": "build_summary"})

    layers: tuple[LayerRepair, ...]
    examples: int
    held_back: int
    seconds: float
    output_error: tuple[tuple[float, float], ...] = ()

    @property
    def repaired(self) -> int:
        """Number of reconstructed kernels: rows with the state "repaired"."""
        return sum(layer.state == REPAIRED for layer in self.layers)

    def summarize(self) -> str:
        """Return the result in one line."""
        ends = ", ".join(f"{_format_error(a)} -> {_format_error(b)}" for a, b in self.output_error)
        return (
            f"{self.repaired} of {len(self.layers)} layers repaired on {self.examples:,} examples "
            f"in {self.seconds:.0f} s; error of outputs, held back: {ends or 'not comparable'}"
        )

    def build_summary(self) -> Summary:
        """Return a summary for the screen."""
        rows = [
            (
                layer.name,
                layer.kind,
                _format_error(layer.before),
                _format_error(layer.after),
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
            f"output {_format_error(before)} -> {_format_error(after)}"
            for before, after in self.output_error
        ]
        reasons = [f"{item.name}: {item.reason}" for item in self.layers if item.reason]
        return Summary(
            f"{self.repaired} of {len(self.layers)} layers repaired",
            tuple(lines),
            ("Layer", "kind", "before", "after", "target"),
            tuple(rows),
            tuple(reasons),
            "layers",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON."""
        return asdict(self)


def explain_kept(before: float, after: float) -> str:
    """Return the reason for keeping a layer's weights, from its held-out errors."""
    if before == 0:
        return "nothing is broken in front of it"
    return f"solved, its error on examples held back would be {after:.3g} instead of {before:.3g}"


def parse_repair_report(record: dict[str, Any]) -> RepairReport:
    """Return the report from the JSON that `RepairReport.to_json` returned."""
    # keys of other versions are ignored
    names = {item.name for item in fields(LayerRepair)}
    layers = ({name: layer[name] for name in layer if name in names} for layer in record["layers"])
    return RepairReport(
        tuple(LayerRepair(**layer) for layer in layers),
        record["examples"],
        record["held_back"],
        record["seconds"],
        tuple((before, after) for before, after in record["output_error"]),
    )


def _format_error(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if value >= 1e-4 else f"{value:.1e}"
