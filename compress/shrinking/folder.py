"""The files of one `shrink`: what a run's folder holds, and the smaller nets on the way."""

from __future__ import annotations

from pathlib import Path

from compress.run.directory import RunFolder
from compress.run.records import read_record
from compress.shrinking.net import Net


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
