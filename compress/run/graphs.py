"""The graphs of a model before and after it was compressed, as a run's folder holds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.run.records import Record, too_low


@dataclass(frozen=True)
class CallNode(Record):
    """One call of a model.

    Attributes:
        name: Of the layer, behind those of the models around it.
        kind: Class name.
        shape: Of its first output, without the batch axis; None where a size is unknown.
        macs: At batch 1; None: they could not be counted, see `reason`.
        params: Of a shared layer only at its first call.
        sources: Places of the calls that it reads.
        reason: Why `macs` is None.
        ms: That it takes, with what is fused into it: from a table of calls that were timed one by
            one; None where there is none.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]
    macs: int | None
    params: int
    sources: tuple[int, ...]
    reason: str = ""
    ms: float | None = None

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return too_low(self, 0, "macs", "params", "ms")


Nodes = tuple[CallNode, ...]
SIDES = ("before", "after")


def write_graphs(path: Path, before: Nodes, after: Nodes) -> None:
    """Writes both graphs of a model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        name: [node.to_json() for node in nodes]
        for name, nodes in zip(SIDES, (before, after), strict=True)
    }
    write_json(path, content)


def read_graphs(path: Path) -> tuple[Nodes, Nodes] | None:
    """Reads both graphs of a model; None where none were written.

    Raises:
        InputError: The file is damaged.
    """
    if not path.exists():
        return None
    content = read_json(path)
    found = []
    for name in SIDES:
        part = content.get(name)
        if not isinstance(part, list):
            raise InputError(f"'{path}' must hold two graphs. Received: none called {name}.")
        nodes = tuple(CallNode.from_json(item, path) for item in part)
        for place, node in enumerate(nodes):
            if any(not 0 <= source < place for source in node.sources):
                raise InputError(f"'{path}' must name calls in their order. Received: another.")
        found.append(nodes)
    return found[0], found[1]
