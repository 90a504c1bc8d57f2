"""Image files as arrays of one size and depth, grey or RGB, with the values of the files.

A folder has one sub-folder of images per class, or such folders in train/, val/, test/. Without
labels: images at any depth, or in train/, val/, test/.
"""

from __future__ import annotations

import itertools
import math
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arrays import CHUNK_BYTES, GrowingArray, is_large, require_spool_space
from compress.core.errors import InputError
from compress.data.kinds import Kind, ReadRequest
from compress.data.parts import PART_NAMES, Array, RawData, Split

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}

# errors that Pillow raises for corrupt, unsupported or malicious files
_READ_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError,
    MemoryError, struct.error, zlib.error,
)  # fmt: skip
_GREY_MODES = {"1", "L", "LA"}
_ALPHA_MODES = {"LA", "RGBA", "PA", "RGBa"}
_CONVERTED_MODES = {"CMYK", "YCbCr", "LAB", "HSV"}
_ORIENTATION_TAG = 0x0112
_MULTI_FRAME_FORMATS = {"GIF", "PNG", "TIFF", "WEBP"}
"""Formats whose further frames are separate images (those of .jpg files are previews)."""
REPORT_INTERVAL = 256
"""Number of files after which the progress is reported."""
_MAX_NAMED = 5
"""Largest number of corrupt images that an error names."""


@dataclass(frozen=True)
class Depth:
    """Number type of an image's values, and the value of full brightness.

    Attributes:
        name: Name shown to users.
        dtype: Number type of the arrays.
        full_scale: Value of white; 1: values have no upper bound and are not scaled.
    """

    name: str
    dtype: type[Any]
    full_scale: float


BYTES = Depth("8 bits", np.uint8, 255.0)
WORDS = Depth("16 bits", np.uint16, 65535.0)
INTEGERS = Depth("32 bits", np.int32, 1.0)
FLOATS = Depth("floating point", np.float32, 1.0)


@dataclass(frozen=True)
class ImageFormat:
    """Size, depth and channels that all images of a data set share.

    Attributes:
        size: Width and height in pixels, after rotation to the EXIF orientation.
        depth: Depth of all images.
        is_grey: Whether there is one channel; else there are three.
        notes: Content that was dropped or changed.
        needs_resize: Whether images of other sizes are resized to `size`.
    """

    size: tuple[int, int]
    depth: Depth
    is_grey: bool
    notes: tuple[str, ...]
    needs_resize: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """The height, width and channels of an example."""
        return (self.size[1], self.size[0], 1 if self.is_grey else 3)

    @property
    def example_bytes(self) -> int:
        """Bytes of an example."""
        return math.prod(self.shape) * np.dtype(self.depth.dtype).itemsize


class DamagedImages:
    """Images that cannot be read, which one error names when all images were tried.

    Attributes:
        errors: Errors by path, in the order of reading.
    """

    def __init__(self) -> None:
        self.errors: dict[Path, InputError] = {}

    @contextmanager
    def collect_errors(self, path: Path) -> Iterator[None]:
        """Record the error if reading an image raises one."""
        try:
            yield
        except InputError as error:
            self.errors[path] = error

    def raise_if_any(self, total: int) -> None:
        """Raise an error that names the images that cannot be read.

        Args:
            total: Number of all images.

        Raises:
            InputError: At least one image cannot be read.
        """
        if not self.errors:
            return
        paths, message = list(self.errors), str(next(iter(self.errors.values())))
        if len(paths) > 1:
            others = ", ".join(f"'{path}'" for path in paths[1:_MAX_NAMED])
            more = f" and {len(paths) - _MAX_NAMED} more" if len(paths) > _MAX_NAMED else ""
            message += f" {len(paths)} of {total:,} images cannot be read: also {others}{more}."
        raise InputError(f"{message} Delete or replace {'it' if len(paths) == 1 else 'them'}.")


def load_images(source: str, request: ReadRequest) -> RawData:
    """Read all images at one size and depth, grey if every image is grey, else RGB.

    Args:
        source: The folder.
        request: The request: whether labels are ignored, and the size that images are resized to.

    Raises:
        InputError: There are no class folders, a part has other classes, images are unreadable
            (all are named), have different sizes or depths, or the images do not fit onto the disk.
    """
    root = Path(source)
    parts = _find_parts(root)
    classes = None if request.ignores_labels else _list_class_names(parts["train"])
    skipped: Counter[str] = Counter()
    files = {part: _list_images(folder, classes, skipped) for part, folder in parts.items()}
    paths = [path for listed in files.values() for path, _ in listed]
    damaged = DamagedImages()
    steps = itertools.count(1)

    def on_file() -> None:
        done, total = next(steps), 2 * len(paths)  # headers, then pixels
        if done % REPORT_INTERVAL == 0 or done == total:
            request.on_progress("reading images", done / total)

    image_format = _infer_format(paths, request.options.resize, damaged, on_file)
    splits = {
        part: _read_images(
            [item for item in listed if item[0] not in damaged.errors],
            image_format,
            damaged,
            on_file,
            classes is not None,
        )
        for part, listed in files.items()
    }
    damaged.raise_if_any(len(paths))
    notes = tuple(f"{n} files ending in '{s}' skipped: not images" for s, n in skipped.items())
    return RawData(
        splits["train"],
        splits.get("val"),
        splits.get("test"),
        classes,
        image_format.depth.full_scale,
        (*notes, *image_format.notes),
    )


def _infer_format(
    paths: Sequence[Path],
    resize: tuple[int, int] | None,
    damaged: DamagedImages,
    on_file: Callable[[], None],
) -> ImageFormat:
    """Return the common size, depth and channels, read from the headers.

    Args:
        paths: Paths of the images.
        resize: Height and width that all images are resized to; None: they must have one size.
        damaged: Collects images that cannot be read.
        on_file: Called after each file.

    Raises:
        InputError: No image can be read, images differ in size or depth, or the images fit neither
            into memory nor onto the disk.
    """
    sizes: dict[tuple[int, int], Path] = {}
    depths: dict[Depth, Path] = {}
    modes: set[str] = set()
    remark_counts: Counter[str] = Counter()
    for path in paths:
        with damaged.collect_errors(path), _open_image(path) as image:
            size = image.size
            if _read_orientation(image) >= 5 and image.format != "TIFF":
                size = size[::-1]  # Pillow rotates TIFF files itself; their size is already rotated
            sizes.setdefault(size, path)
            depths.setdefault(_detect_depth(image), path)
            modes.add(image.mode)
            remark_counts.update(_list_remarks(image))
        on_file()
    if not sizes:
        damaged.raise_if_any(len(paths))
    if len(sizes) > 1 and resize is None:
        (first_size, first), (second_size, second) = list(sizes.items())[:2]
        raise InputError(
            f"Images must have one size. Received: {first_size[0]}x{first_size[1]} ('{first}') and "
            f"{second_size[0]}x{second_size[1]} ('{second}'). Resize them: --resize HEIGHT,WIDTH."
        )
    if len(depths) > 1:
        (first_depth, first), (second_depth, second) = list(depths.items())[:2]
        raise InputError(
            f"Images must have one depth. Received: {first_depth.name} ('{first}') and "
            f"{second_depth.name} ('{second}'). Convert them first."
        )
    size, (depth,) = next(iter(sizes)), depths
    notes = tuple(
        f"{count} {'image' if count == 1 else 'images'} {remark}"
        for remark, count in remark_counts.items()
    )
    if resize is not None and set(sizes) != {resize[::-1]}:
        size = resize[::-1]
        notes += (f"images resized to {size[0]}x{size[1]} pixels (bilinear, smoothed)",)
    result = ImageFormat(
        size, depth, depth is not BYTES or modes <= _GREY_MODES, notes, resize is not None
    )
    needed = len(paths) * result.example_bytes
    if is_large(needed):
        described = f"{len(paths):,} images of {size[0]}x{size[1]} pixels ('{paths[0]}' and others)"
        require_spool_space(needed, described)
    return result


def _read_images(
    listed: Sequence[tuple[Path, int]],
    image_format: ImageFormat,
    damaged: DamagedImages,
    on_file: Callable[[], None],
    has_labels: bool,
) -> Split:
    """Read images of a common format, (n, height, width, channels); many go to a file."""
    chunk: list[Array] = []
    labels: list[int] = []

    def stack_chunk() -> Array:
        return np.array(chunk, image_format.depth.dtype).reshape(-1, *image_format.shape)

    with closing(GrowingArray("Images")) as images:
        for path, label in listed:
            with damaged.collect_errors(path):
                chunk.append(_read_image(path, image_format))
                labels.append(label)
            on_file()
            if len(chunk) * image_format.example_bytes >= CHUNK_BYTES:
                images.add(stack_chunk())
                chunk.clear()
        images.add(stack_chunk())
        x = images.to_array()
    return Split(x, np.asarray(labels, np.int64)) if has_labels else Split.unlabelled(x)


def _read_image(path: Path, image_format: ImageFormat) -> Array:
    """Return an image's values, (height, width, channels)."""
    with _open_image(path) as image:
        orientation = 1 if image.format == "TIFF" else _read_orientation(image)
        upright = _rotate_upright(_convert_mode(image, image_format), orientation)
        values = _resize_image(upright, image_format)
    if values.shape != image_format.shape[: values.ndim]:
        raise InputError(
            f"Image '{path}' must have the size that its header says. Received: "
            f"{values.shape[1]}x{values.shape[0]} instead of "
            f"{image_format.size[0]}x{image_format.size[1]}."
        )
    return values.reshape(image_format.shape)


def _resize_image(image: Image, image_format: ImageFormat) -> Array:
    """Return an image's values, resized if needed; values of integer types are rounded."""
    from PIL.Image import Resampling, fromarray

    if not image_format.needs_resize or image.size == image_format.size:
        return np.asarray(image)
    if image_format.depth is BYTES:
        return np.asarray(image.resize(image_format.size, Resampling.BILINEAR))
    # Pillow supports only nearest-neighbour resizing for 16 bits
    float_image = fromarray(np.asarray(image).astype(np.float32))
    values = np.asarray(float_image.resize(image_format.size, Resampling.BILINEAR))
    return (
        values
        if image_format.depth is FLOATS
        else np.round(values).astype(image_format.depth.dtype)
    )


@contextmanager
def _open_image(path: Path) -> Iterator[Image]:
    """Open an image; raise a one-line error if the file is corrupt or missing."""
    import PIL
    from PIL import Image

    if not path.is_file():
        raise InputError(f"Image '{path}' must be a file, or a link to one.")
    try:
        # `_infer_format` checks sizes against the memory; corrupt tags are harmless
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # open a stream: Pillow maps named files and then rotates TIFFs wrongly
            with open(path, "rb") as stream, Image.open(stream) as image:
                yield image
    except InputError:
        raise
    except (*_READ_ERRORS, Image.DecompressionBombError) as error:
        reason = (
            "corrupt, or of no kind that Pillow knows"
            if isinstance(error, PIL.UnidentifiedImageError)
            else str(error) or type(error).__name__
        )
        raise InputError(f"Image '{path}' must be readable and complete ({reason}).") from None


def _detect_depth(image: Image) -> Depth:
    if image.mode.startswith("I;16"):
        return WORDS
    if image.mode == "I":
        # Pillow reads 16-bit files of these formats in a 32-bit mode
        return WORDS if image.format in ("PNG", "PPM") else INTEGERS
    return FLOATS if image.mode == "F" else BYTES


def _list_remarks(image: Image) -> list[str]:
    """Return notes on contents of an image that reading drops or converts, such as alpha."""
    tiles = getattr(image, "tile", None)  # storage of the values in the file
    stored = str(tiles[0].args) if tiles else ""
    remarks = {
        "with transparency: it is left out": (
            image.mode in _ALPHA_MODES or "transparency" in image.info
        ),
        "with a palette: read as the colours that they show": image.mode in ("P", "PA"),
        "of one bit: read as 0 and 255": image.mode == "1",
        f"in {image.mode}: converted to RGB": image.mode in _CONVERTED_MODES,
        "with 16 bits a channel: the upper 8 of them are read": (
            _detect_depth(image) is BYTES and ";16" in stored
        ),
        "turned as their EXIF orientation says": _read_orientation(image) != 1,
        "with several frames or pages: the first is read": (
            image.format in _MULTI_FRAME_FORMATS and getattr(image, "n_frames", 1) > 1
        ),
    }
    return [remark for remark, holds in remarks.items() if holds]


def _read_orientation(image: Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1: upright."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # avoid reading the whole image to find late EXIF data
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _READ_ERRORS:
        return 1  # ignore corrupt tags, as image viewers do
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _convert_mode(image: Image, image_format: ImageFormat) -> Image:
    """Return the image in grey or RGB; images with more than 8 bits are unchanged."""
    if image_format.depth is not BYTES:
        image.load()
        return image
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("L" if image_format.is_grey else "RGB")


def _rotate_upright(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose

    transpositions = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }  # fmt: skip
    return image.transpose(transpositions[orientation]) if orientation in transpositions else image


def _find_parts(root: Path) -> dict[str, Path]:
    """Return the folders of the parts; without any the folder is the training part."""
    named = {name: root / name for name in PART_NAMES if (root / name).is_dir()}
    parts = {PART_NAMES[name]: folder for name, folder in named.items()}
    if len(parts) < len(named):
        raise InputError(f"'{root}' must have one validation part. Received: val and validation.")
    if "train" in parts:
        return parts
    if any(item.is_dir() for folder in named.values() for item in folder.iterdir()):
        raise InputError(
            f"'{root}' must have a folder train beside {' and '.join(named)}. Received: none. Give "
            "the training images, or one folder of class folders, which is split."
        )
    return {"train": root}


def _list_class_names(folder: Path) -> tuple[str, ...]:
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(names) < 2:
        raise InputError(
            f"Data folder '{folder}' must hold IDX files or at least two class folders of images. "
            f"Received: {', '.join(names) or 'no sub-folder'}. For images without labels give "
            "--task unlabelled."
        )
    return tuple(names)


def _list_images(
    folder: Path, classes: tuple[str, ...] | None, skipped: Counter[str]
) -> list[tuple[Path, int]]:
    """Return (path, class index) of images, 0 without classes; count other files in `skipped`."""
    listed: list[tuple[Path, int]] = []
    if classes is not None and (names := _list_class_names(folder)) != classes:
        raise InputError(
            f"'{folder}' must have the class folders of the training part. "
            f"Received: {', '.join(names)} instead of {', '.join(classes)}."
        )
    for label, name in enumerate(classes or (".",)):
        for path in sorted((folder / name).rglob("*")):
            if any(name.startswith(".") for name in path.relative_to(folder).parts):
                continue
            if path.suffix.lower() in SUFFIXES and not path.is_dir():
                listed.append((path, label))
            elif path.is_file():
                skipped[path.suffix] += 1
    if not listed:
        raise InputError(f"'{folder}' must hold images. Received: none ({', '.join(SUFFIXES)}).")
    return listed


KIND = Kind(load_images, ("resize",), of_classes=True)
"""Kind of source for folders that no other kind matches."""
