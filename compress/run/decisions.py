"""What files decided of test examples: confusion, and where small files differ from the model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from compress.core.atomic_files import read_json
from compress.core.errors import InputError
from compress.core.typed import conform

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
