"""The files of one `shrink`: what a run's folder holds, and the smaller nets on the way."""

from __future__ import annotations

from pathlib import Path

from compress.core.atomic_files import whole_files
from compress.run.directory import RunFolder
from compress.run.records import read_record
from compress.shrinking.net import Net


class ShrinkFolder(RunFolder):
    """The files of one `shrink`, by role.

    Args:
        path: The folder; it need not exist yet.

    Attributes:
        nets: A record for each smaller net, NAME.json, and its kept units, NAME.npz.
        dense: What the model's own files cost.
        ship: The file to use, with what it takes to use it.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.nets = self.path / "nets"
        self.dense = self.path / "dense.json"
        self.ship = self.path / "ship"

    @property
    def _places(self) -> tuple[Path, ...]:
        return (*super()._places, self.nets)

    def times_of(self, format: str) -> Path:
        """Where the times of calls in files of a format stand."""
        return self.path / f"times-{format}.json"

    def net_file(self, name: str) -> Path:
        """Where a net's record stands."""
        return self.nets / f"{name}.json"

    def read_nets(self) -> list[Net]:
        """Returns the nets so far, in order of their names."""
        return [read_record(path, Net) for path in whole_files(self.nets, ".json")]
