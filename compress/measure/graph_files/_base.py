"""What a SavedModel or a LiteRT file holds, and what one inference of it costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compress.core.summary import Readable, Summary
from compress.measure import formats
from compress.measure.graph_files.ports import Port, shape_text, type_text
from compress.measure.layer_costs import Analysis
from compress.model.kinds import Foreign


@dataclass(frozen=True, repr=False)
class GraphFile(Readable):
    """A model that is no Keras model: it can be measured, and not pruned.

    Attributes:
        path: The file, or a SavedModel's folder.
        what: What it is.
        signature: Which of its functions was looked at; empty: it has no names for them.
        signatures: All of them.
        inputs, outputs: What it takes and gives.
        size_bytes: Of the file, or of all files in the folder.
        costs: Counted from its graph, a row an operator: `Analysis.layers`.
    """

    path: Path
    what: Foreign
    signature: str
    signatures: tuple[str, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    size_bytes: int
    costs: Analysis

    @property
    def name(self) -> str:
        """The file's name without its suffix; a folder's whole name."""
        return self.path.name if self.path.is_dir() else self.path.stem

    @property
    def batch(self) -> int | None:
        """The batch that it fixes and is counted at, where that is not 1."""
        sizes = {port.shape[0] for port in self.inputs if port.shape}
        size = sizes.pop() if len(sizes) == 1 else None
        return None if size == 1 else size

    def screen(self) -> Summary:
        """Returns what is worth a screen: the totals, the costliest operators, what it is."""
        found = self.costs.screen()
        return Summary(
            f"{self.path.name}, {self.what.text}, {formats.size(self.size_bytes)}: {found.title}",
            (*self.lines(), *found.lines),
            ("Operator", *found.heads[1:]),
            found.rows,
            (*found.notes, self.what.verdict),
            "operators",
        )

    def lines(self) -> tuple[str, ...]:
        """Returns what it takes and gives, and its signatures where there are several."""
        found = [f"takes {_ports(self.inputs)}", f"gives {_ports(self.outputs)}"]
        if self.batch:
            found.append(f"counted at batch {self.batch}, which the file fixes")
        if len(self.signatures) > 1:
            found.append(
                f"signature '{self.signature or self.signatures[0]}' of "
                f"{', '.join(self.signatures)}"
            )
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Returns everything but the costs."""
        return {
            "file": str(self.path),
            "kind": self.what.kind,
            "size_bytes": self.size_bytes,
            "signature": self.signature,
            "signatures": list(self.signatures),
            "inputs": [asdict(port) for port in self.inputs],
            "outputs": [asdict(port) for port in self.outputs],
            "prunable": False,
            "verdict": self.what.verdict,
        }


def _ports(ports: tuple[Port, ...]) -> str:
    return "; ".join(f"{port.name} {shape_text(port)} {type_text(port)}" for port in ports)
