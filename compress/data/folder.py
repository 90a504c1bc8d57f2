"""A folder with one sub-folder of images a class, or such folders in train/, val/, test/.

Without labels: images at any depth, or in train/, val/, test/.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from compress.core.errors import InputError
from compress.data.images import SUFFIXES, Common, Damaged, common, read
from compress.data.kinds import Asked, Kind
from compress.data.parts import RawData, Split


def load(source: str, asked: Asked) -> RawData:
    """Reads all images at one size and depth, grey where every image is grey, else RGB.

    Args:
        source: The folder.
        asked: Whether labels are looked at, the size that images become of, and the share of them
            that may be left out because they cannot be read.

    Raises:
        InputError: No class folders, other classes in another part, an unreadable image,
            images of different sizes or depths, or more of them than memory holds.
    """
    root = Path(source)
    parts = {part: root / part for part in ("train", "val", "test") if (root / part).is_dir()}
    if "train" not in parts:
        parts = {"train": root}
    classes = None if asked.bare else _classes(parts["train"])
    skipped: Counter[str] = Counter()
    files = {part: _files(folder, classes, skipped) for part, folder in parts.items()}
    paths = [path for listed in files.values() for path, _ in listed]
    damaged = Damaged(len(paths), asked.options.skip_damaged)
    form = common(paths, asked.options.resize, damaged)
    gone = set(damaged.paths)
    splits = {
        part: _read([item for item in listed if item[0] not in gone], form, damaged,
                    classes is not None)
        for part, listed in files.items()
    }  # fmt: skip
    notes = damaged.notes() + tuple(
        f"{n} files ending in '{s}' skipped: not images" for s, n in skipped.items()
    )
    return RawData(
        splits["train"],
        splits.get("val"),
        splits.get("test"),
        classes,
        form.depth.full,
        (*notes, *form.notes),
    )


def _read(listed: list[tuple[Path, int]], form: Common, damaged: Damaged, labelled: bool) -> Split:
    images, places = read([path for path, _ in listed], form, damaged)
    if not labelled:
        return Split.unlabelled(images)
    return Split(images, np.asarray([listed[place][1] for place in places], np.int64))


def _classes(folder: Path) -> tuple[str, ...]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        raise InputError(
            f"Data folder '{folder}' must hold IDX files or at least two class folders of images. "
            f"Received: {', '.join(names) or 'no sub-folder'}. For images without labels give "
            "--task unlabelled."
        )
    return tuple(names)


def _files(
    folder: Path, classes: tuple[str, ...] | None, skipped: Counter[str]
) -> list[tuple[Path, int]]:
    listed: list[tuple[Path, int]] = []
    if classes is not None and _classes(folder) != classes:
        raise InputError(
            f"'{folder}' must have the class folders of the training part. "
            f"Received: {', '.join(_classes(folder))} instead of {', '.join(classes)}."
        )
    for label, name in enumerate(classes or (".",)):
        for path in sorted((folder / name).rglob("*")):
            if path.suffix.lower() in SUFFIXES and not path.is_dir():
                listed.append((path, label))
            elif path.is_file():
                skipped[path.suffix] += 1
    if not listed:
        raise InputError(f"'{folder}' must hold images. Received: none ({', '.join(SUFFIXES)}).")
    return listed


KIND = Kind(load, ("resize",), of_classes=True)
"""What reads folders of no other kind."""
