"""A folder with one sub-folder of images a class, or such folders in train/, val/, test/."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from compress.data._base import RawData, Split
from compress.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def load(source: str) -> RawData:
    """Reads all images at one size, grey where every image is grey, else RGB.

    Raises:
        InputError: No class folders, other classes in another part, an unreadable image,
            or images of different sizes.
    """
    root = Path(source)
    parts = {part: root / part for part in ("train", "val", "test") if (root / part).is_dir()}
    if "train" not in parts:
        parts = {"train": root}
    classes = _classes(parts["train"])
    skipped: Counter[str] = Counter()
    files = {part: _files(folder, classes, skipped) for part, folder in parts.items()}
    mode = _mode([path for listed in files.values() for path, _ in listed])
    splits = {part: _read(listed, mode) for part, listed in files.items()}
    notes = tuple(f"{n} files ending in '{s}' skipped: not images" for s, n in skipped.items())
    return RawData(splits["train"], splits.get("val"), splits.get("test"), classes, 255.0, notes)


def _classes(folder: Path) -> tuple[str, ...]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        raise InputError(
            f"Data folder '{folder}' must hold IDX files or at least two class folders of images. "
            f"Received: {', '.join(names) or 'no sub-folder'}."
        )
    return tuple(names)


def _files(folder: Path, classes: tuple[str, ...], skipped: Counter[str]) -> list[tuple[Path, int]]:
    listed: list[tuple[Path, int]] = []
    if _classes(folder) != classes:
        raise InputError(
            f"'{folder}' must have the class folders of the training part. "
            f"Received: {', '.join(_classes(folder))} instead of {', '.join(classes)}."
        )
    for label, name in enumerate(classes):
        for path in sorted((folder / name).rglob("*")):
            if path.suffix.lower() in SUFFIXES:
                listed.append((path, label))
            elif path.is_file():
                skipped[path.suffix] += 1
    if not listed:
        raise InputError(f"'{folder}' must hold images. Received: none ({', '.join(SUFFIXES)}).")
    return listed


def _mode(paths: list[Path]) -> str:
    """One mode and one size for all images; only the headers are read."""
    from PIL import Image

    modes: set[str] = set()
    sizes: dict[tuple[int, int], Path] = {}
    for path in paths:
        try:
            with Image.open(path) as image:
                modes.add(image.mode)
                sizes.setdefault(image.size, path)
        except OSError as error:
            raise InputError(f"Image '{path}' must be readable ({error}).") from None
    if len(sizes) > 1:
        (size, first), (other, second) = list(sizes.items())[:2]
        raise InputError(
            f"Images must have one size. Received: {size[0]}x{size[1]} ('{first}') and "
            f"{other[0]}x{other[1]} ('{second}'). Resize them first."
        )
    return "L" if modes <= {"L", "1"} else "RGB"


def _read(listed: list[tuple[Path, int]], mode: str) -> Split:
    from PIL import Image

    images = []
    for path, _ in listed:
        try:
            with Image.open(path) as image:
                images.append(np.asarray(image.convert(mode), np.uint8))
        except OSError as error:
            raise InputError(f"Image '{path}' must be complete ({error}).") from None
    x = np.stack(images)  # (n, H, W) or (n, H, W, 3)
    labels = np.asarray([label for _, label in listed], np.int64)
    return Split(x[..., np.newaxis] if x.ndim == 3 else x, labels)
