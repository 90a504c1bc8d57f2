"""The record of one smaller net on the way to a goal, and the folder of such nets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.run.directory import RunFolder
from compress.run.records import Record, read_record, too_low, unknown_value

REPAIRED, TRAINED = "repaired", "trained"
STAGES = (REPAIRED, TRAINED)


@dataclass(frozen=True)
class Net(Record):
    """A smaller net: what it keeps, what it costs, how good it is at each stage.

    Attributes:
        name: In names of files: "l0_5-int8".
        format: Of the file that its widths were chosen for.
        formats: Of the files that are made of it.
        goals: What it was to come to, by cost: milliseconds, bytes, counts.
        costs: What it came to: counted, and measured on its file in that format.
        macs, params: Counted.
        share: Of the model's own MACs.
        whole: Whether nothing left: the format alone meets the goals.
        dropped: Places of blocks that left.
        rounds: How often the choice was put right by what was measured.
        stage: "repaired" or "trained".
        repaired: Validation quality of its files before training, by format, then by name.
        val: The same at its last stage.
        checks: How its files agree with the Keras model, see `compress.shrinking.files`.
        epochs, best_epoch: Of its fine-tuning, and which of them was kept.
        seconds: That its stages took so far.
        notes: What there is to know about it.
        device_ms: Milliseconds of its files by format on the device of a table of times,
            estimated from it; {}: times are measured here.
        variation: How it departs from the fixed recipe, as JSON; {}: it does not.
        channels: The channel report, as JSON; None where nothing left.
        layer_ms: Milliseconds by layer "before" and "after", from the table of times; {}: there is
            none.
    """

    name: str
    format: str
    formats: tuple[str, ...]
    goals: dict[str, float]
    costs: dict[str, float]
    macs: int
    params: int
    share: float
    whole: bool
    dropped: tuple[int, ...]
    rounds: int
    stage: str
    repaired: dict[str, dict[str, float]] = field(default_factory=dict)
    val: dict[str, dict[str, float]] = field(default_factory=dict)
    checks: dict[str, dict[str, float]] = field(default_factory=dict)
    epochs: int = 0
    best_epoch: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    channels: dict[str, Any] | None = None
    layer_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    device_ms: dict[str, float] = field(default_factory=dict)
    variation: dict[str, Any] = field(default_factory=dict)

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return unknown_value("stage", self.stage, STAGES) or too_low(
            self, 0, "macs", "params", "share", "rounds", "epochs", "seconds"
        )

    def quality(self, format: str, name: str) -> float:
        """Returns the validation quality of its file of a format, at its last stage."""
        return self.val[format][name]

    def repaired_best(self, name: str) -> float:
        """Returns the best validation quality of its files before training."""
        return max(values[name] for values in self.repaired.values())

    def best(self, name: str) -> float:
        """Returns the best validation quality of its files, at its last stage."""
        return max(values[name] for values in self.val.values())


class ShrinkFolder(RunFolder):
    """The files of one `shrink`, by role.

    Args:
        path: The folder; it need not exist yet.

    Attributes:
        nets: A record for each smaller net, NAME.json.
        dense: What the model's own files cost.
        spent: Seconds that were spent, where a budget bounds them.
        ship: The file to use, with what it takes to use it.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.nets = self.path / "nets"
        self.dense = self.path / "dense.json"
        self.spent = self.path / "spent.json"
        self.ship = self.path / "ship"

    @property
    def _places(self) -> tuple[Path, ...]:
        return (*super()._places, self.nets)

    def net_file(self, name: str) -> Path:
        """Where a net's record stands."""
        return self.nets / f"{name}.json"

    def read_net(self, name: str) -> Net | None:
        """Returns a net that was made; None: it was not."""
        path = self.net_file(name)
        return read_record(path, Net) if path.exists() else None

    def known_net(self, name: str) -> Net:
        """Returns a net that is there."""
        return read_record(self.net_file(name), Net)
