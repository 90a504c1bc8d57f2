"""Image files as arrays: one size, one depth, grey or RGB, values as the files hold them.

A folder has one sub-folder of images a class, or such folders in train/, val/, test/. Without
labels: images at any depth, or in train/, val/, test/.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.errors import InputError
from compress.core.memory_budget import require_room
from compress.data.kinds import Asked, Kind
from compress.data.parts import Array, RawData, Split

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}

# what Pillow raises over files that are damaged, of another kind, or made to do harm
_DAMAGED = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    MemoryError, struct.error, zlib.error,
)  # fmt: skip
_GREY = {"1", "L", "LA"}
_ALPHA = {"LA", "RGBA", "PA", "RGBa"}
_CONVERTED = {"CMYK", "YCbCr", "LAB", "HSV"}
_ORIENTATION = 0x0112
_FRAMES = {"GIF", "PNG", "TIFF", "WEBP"}
"""Formats whose further images are other images (those of .jpg files are previews)."""
_NAMED = 5
"""Damaged images that a note names."""


@dataclass(frozen=True)
class Depth:
    """Number type of an image's values, and the value of full brightness.

    Attributes:
        name: As users know it.
        dtype: Of the arrays.
        full: What white is; 1: values have no such bound and stay as they are.
    """

    name: str
    dtype: type[Any]
    full: float


BYTES = Depth("8 bits", np.uint8, 255.0)
WORDS = Depth("16 bits", np.uint16, 65535.0)
INTEGERS = Depth("32 bits", np.int32, 1.0)
FLOATS = Depth("floating point", np.float32, 1.0)


@dataclass(frozen=True)
class Common:
    """Size, depth and channels that all images of a data set share.

    Attributes:
        size: Width and height, as the images are looked at.
        depth: Of all of them.
        grey: Whether there is one channel; else there are three.
        notes: What was left out or changed.
        resized: Whether images of other sizes become of this one.
    """

    size: tuple[int, int]
    depth: Depth
    grey: bool
    notes: tuple[str, ...]

    resized: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an example."""
        return (self.size[1], self.size[0], 1 if self.grey else 3)


class Damaged:
    """Images that cannot be read: so many may be left out, and they are named.

    Args:
        total: How many images there are.
        share: Of them that may be left out, in [0, 1).

    Attributes:
        paths: Those that were.
    """

    def __init__(self, total: int, share: float) -> None:
        self._allowed = int(share * total)
        self._share, self._total = share, total
        self.paths: list[Path] = []

    @contextmanager
    def skipped(self, path: Path) -> Iterator[None]:
        """Leave an image out where reading it raises an error.

        Raises:
            InputError: It is one too many.
        """
        try:
            yield
        except InputError as error:
            self.paths.append(path)
            if len(self.paths) <= self._allowed:
                return
            if not self._allowed:
                raise
            raise InputError(
                f"{error} It is number {len(self.paths)} of {self._total:,} that cannot be read, "
                f"and {self._share:.2%} may be skipped (--skip-damaged)."
            ) from None

    def notes(self) -> tuple[str, ...]:
        """Return notes for the report."""
        if not self.paths:
            return ()
        named = ", ".join(f"'{path}'" for path in self.paths[:_NAMED])
        more = ", ..." if len(self.paths) > _NAMED else ""
        return (f"{len(self.paths)} of {self._total:,} images skipped: damaged ({named}{more})",)


def load(source: str, asked: Asked) -> RawData:
    """Read all images at one size and depth, grey where every image is grey, else RGB.

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
    form = _common(paths, asked.options.resize, damaged)
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


def _common(paths: Sequence[Path], resize: tuple[int, int] | None, damaged: Damaged) -> Common:
    """Return the common size, depth and channels, read from the headers.

    Args:
        paths: Of the images.
        resize: Height and width that all become of; None: they must have one size.
        damaged: Takes those that cannot be read.

    Raises:
        InputError: An image cannot be read; they differ in size or depth; or together they do
            not fit into memory.
    """
    sizes: dict[tuple[int, int], Path] = {}
    depths: dict[Depth, Path] = {}
    modes: set[str] = set()
    found: Counter[str] = Counter()
    for path in paths:
        with damaged.skipped(path), _opened(path) as image:
            size = image.size
            if _orientation(image) >= 5 and image.format != "TIFF":
                size = size[::-1]  # Pillow turns TIFF files itself, and gives their size turned
            sizes.setdefault(size, path)
            depths.setdefault(_depth(image), path)
            modes.add(image.mode)
            found.update(_remarks(image))
    if len(sizes) > 1 and resize is None:
        (one, first), (other, second) = list(sizes.items())[:2]
        raise InputError(
            f"Images must have one size. Received: {one[0]}x{one[1]} ('{first}') and "
            f"{other[0]}x{other[1]} ('{second}'). Resize them: --resize HEIGHT,WIDTH."
        )
    if len(depths) > 1:
        (deep, first), (less, second) = list(depths.items())[:2]
        raise InputError(
            f"Images must have one depth. Received: {deep.name} ('{first}') and {less.name} "
            f"('{second}'). Convert them first."
        )
    size, (depth,) = next(iter(sizes)), depths
    notes = tuple(
        f"{count} {'image' if count == 1 else 'images'} {remark}" for remark, count in found.items()
    )
    if resize is not None and set(sizes) != {resize[::-1]}:
        size = resize[::-1]
        notes += (f"images resized to {size[0]}x{size[1]} pixels (bilinear, smoothed)",)
    result = Common(size, depth, depth is not BYTES or modes <= _GREY, notes, resize is not None)
    height, width, channels = result.shape
    require_room(
        len(paths) * height * width * channels * np.dtype(depth.dtype).itemsize,
        f"{len(paths)} image(s) of {width}x{height} pixels ('{paths[0]}' and others)",
    )
    return result


def _read(
    listed: Sequence[tuple[Path, int]], form: Common, damaged: Damaged, labelled: bool
) -> Split:
    """Read images of a common form, (n, height, width, channels)."""
    images = np.empty((len(listed), *form.shape), form.depth.dtype)
    labels: list[int] = []
    for path, label in listed:
        with damaged.skipped(path), _opened(path) as image:
            turned = 1 if image.format == "TIFF" else _orientation(image)
            upright = _upright(_plain(image, form), turned)
            values = _sized(upright, form) if form.resized else np.asarray(upright)
            if values.shape != form.shape[: values.ndim]:
                raise InputError(
                    f"Image '{path}' must have the size that its header says. Received: "
                    f"{values.shape[1]}x{values.shape[0]} instead of {form.size[0]}x{form.size[1]}."
                )
            images[len(labels)] = values.reshape(form.shape)
            labels.append(label)
    images = images[: len(labels)]
    return Split(images, np.asarray(labels, np.int64)) if labelled else Split.unlabelled(images)


def _sized(image: Image, form: Common) -> Array:
    """Return an image's values at the common size; deep ones are rounded as they must be."""
    from PIL.Image import Resampling, fromarray

    if image.size == form.size:
        return np.asarray(image)
    if form.depth is BYTES:
        return np.asarray(image.resize(form.size, Resampling.BILINEAR))
    # Pillow resizes 16 bits by nearest pixels alone
    real = fromarray(np.asarray(image).astype(np.float32))
    values = np.asarray(real.resize(form.size, Resampling.BILINEAR))
    return values if form.depth is FLOATS else np.round(values).astype(form.depth.dtype)


@contextmanager
def _opened(path: Path) -> Iterator[Image]:
    """Open an image; whatever is wrong with the file becomes one line."""
    import PIL
    from PIL import Image

    if not path.is_file():
        raise InputError(f"Image '{path}' must be a file. Remove it, or fix the link.")
    try:
        # its size is checked here against the memory there is; of damaged tags nothing hangs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # by a stream: Pillow maps files whose name it knows, and then turns TIFFs wrongly
            with open(path, "rb") as stream, Image.open(stream) as image:
                yield image
    except InputError:
        raise
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, PIL.UnidentifiedImageError):
            reason = "damaged, or of no kind that Pillow knows"
        raise InputError(f"Image '{path}' must be readable and complete ({reason}).") from None


def _depth(image: Image) -> Depth:
    if image.mode.startswith("I;16"):
        return WORDS
    if image.mode == "I":
        # a 32-bit mode in which these formats hold 16 bits, or what was scaled to them
        return WORDS if image.format in ("PNG", "PPM") else INTEGERS
    return FLOATS if image.mode == "F" else BYTES


def _remarks(image: Image) -> list[str]:
    tiles = getattr(image, "tile", None)  # how the values lie in the file
    stored = str(tiles[0].args) if tiles else ""
    remarks = {
        "with transparency: it is left out": (image.mode in _ALPHA or "transparency" in image.info),
        "with a palette: read as the colours that they show": image.mode in ("P", "PA"),
        "of one bit: read as 0 and 255": image.mode == "1",
        f"in {image.mode}: converted to RGB": image.mode in _CONVERTED,
        "with 16 bits a channel: the upper 8 of them are read": (
            _depth(image) is BYTES and ";16" in stored
        ),
        "turned as their EXIF orientation says": _orientation(image) != 1,
        "with several frames or pages: the first is read": (
            image.format in _FRAMES and getattr(image, "n_frames", 1) > 1
        ),
    }
    return [remark for remark, holds in remarks.items() if holds]


def _orientation(image: Image) -> int:
    """Return how an image is to be turned, 1 to 8; 1: not at all."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would read the whole image to look behind it
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGED:
        return 1  # as viewers do, who ignore damaged tags
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _plain(image: Image, form: Common) -> Image:
    """Return the image in grey or RGB; deeper ones as they are."""
    if form.depth is not BYTES:
        image.load()
        return image
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("L" if form.grey else "RGB")


def _upright(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }  # fmt: skip
    return image.transpose(turns[orientation]) if orientation in turns else image


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
