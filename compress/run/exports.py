"""What lies beside a run's exported files: decisions, graphs of the models, values by example."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from compress.core.arguments import conform
from compress.core.arrays import opened
from compress.core.atomic_files import read_json, replacing, write_json
from compress.core.errors import InputError
from compress.core.statistics import Floats
from compress.run.directory import RunFolder
from compress.run.records import Record, too_low

PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]+")


class _Differing(TypedDict):
    place: int
    label: int
    before: int
    after: int
    picture: str


class _File(TypedDict):
    baseline: str
    confusion: list[list[int]]
    differ: int
    examples: list[_Differing]


class _Content(TypedDict):
    class_names: list[str]
    files: dict[str, _File]


@dataclass(frozen=True)
class Decisions:
    """Decisions of a model's files, on the test part.

    Attributes:
        class_names: In the order of labels.
        files: By artifact: "confusion" (rows: labels, columns: decisions), "baseline" (what the
            file is held against), "differ" (examples that the two decide otherwise), "examples"
            (some of these).
    """

    class_names: tuple[str, ...]
    files: dict[str, dict[str, Any]]


def read_decisions(path: Path) -> Decisions | None:
    """Reads what was written of one model; None where nothing was.

    Raises:
        InputError: The file is damaged.
    """
    if not path.exists():
        return None
    content = conform(read_json(path), _Content, f"'{path}'")
    names, files = tuple(content["class_names"]), content["files"]
    for file in files.values():
        places = [item[key] for item in file["examples"] for key in ("label", "before", "after")]
        square = [len(row) for row in file["confusion"]] == [len(names)] * len(names)
        if not square or any(not 0 <= place < len(names) for place in places):
            raise InputError(f"'{path}' must hold decisions among {len(names)} classes.")
        for item in file["examples"]:
            if not PICTURE.fullmatch(item["picture"]):
                item["picture"] = ""
    return Decisions(names, files)


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


def write_example_values(folder: RunFolder, file: str, part: str, values: Floats) -> None:
    """Keep the values of an exported file on one part of the data.

    Args:
        folder: The run's.
        file: Id of the file: "0005.int8".
        part: "val" or "test".
        values: See `compress.data.tasks.Task.example_values`, (n,).
    """
    with replacing(_values_path(folder, file, part)) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, values=values)


def read_example_values(folder: RunFolder, file: str, part: str) -> Floats | None:
    """Return the values of an exported file on one part of the data.

    Args:
        folder: The run's.
        file: Id of the file.
        part: "val" or "test".

    Returns:
        (n,); None where none were kept, as in folders of older versions.

    Raises:
        InputError: What was kept is damaged.
    """
    path = _values_path(folder, file, part)
    if not path.is_file():
        return None
    with opened(path) as archive:
        values = archive.read(("values",)).get("values")
    if values is None or values.ndim != 1 or values.dtype != np.float64 or not len(values):
        raise InputError(
            f"'{path}' must hold a number for each example. Received: something else. Remove it to "
            "go on without intervals of differences."
        )
    return values


def _values_path(folder: RunFolder, file: str, part: str) -> Path:
    return folder.exports / "examples" / f"{file}.{part}.npz"
