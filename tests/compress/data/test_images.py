"""Image files of every depth and mode, written by Pillow, against the numbers that were written."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compress.core import arrays, linux
from compress.core.errors import InputError
from compress.core.memory_budget import require_memory
from compress.data import DataOptions, Dataset, load_data
from compress.plan import Plan
from compress.plan.nesting import from_flat
from compress.train.dataset_loading import as_dataset

HEIGHT, WIDTH = 3, 5


def folder_of(root: Path, images: list[Any], suffix: str, **how: Any) -> Path:
    """Saves images into two class folders in turn; more of the first are added for the splits."""
    for place, image in enumerate([*images, *images[:1] * 14]):
        home = root / ("a" if place % 2 == 0 else "b")
        home.mkdir(parents=True, exist_ok=True)
        image.save(home / f"{place:02d}{suffix}", **how)
    return root


def stored(data: Dataset) -> set[bytes]:
    """Returns the distinct examples of all parts."""
    return {x.tobytes() for part in ("train", "val", "test") for x in data.split(part).x}


def said(data: Dataset) -> tuple[str, ...]:
    """The notes, but for those of images that are equal, as they are here."""
    return tuple(note for note in data.notes if "(duplicates)" not in note)


def values(dtype: type[Any], high: float) -> np.ndarray:
    ramp = np.linspace(0.0, high, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    return ramp.astype(dtype)


@pytest.mark.parametrize(
    ("suffix", "dtype", "high", "full"),
    [
        (".png", np.uint16, 65535, 65535.0),
        (".png", np.uint16, 900, 65535.0),
        (".tif", np.uint16, 65535, 65535.0),
        (".pgm", np.uint16, 40000, 65535.0),
        (".tif", np.int32, 2_000_000, 1.0),
        (".tif", np.float32, 1.0, 1.0),
        (".png", np.uint8, 255, 255.0),
    ],
)
def test_every_depth_keeps_its_values(
    suffix: str, dtype: type[Any], high: float, full: float, tmp_path: Path
) -> None:
    """Today 16 bits load as 255 and floats in [0, 1] as 0."""
    wanted = values(dtype, high)
    data = load_data(str(folder_of(tmp_path, [Image.fromarray(wanted)], suffix)), normalize="unit")
    assert data.input_shape == (HEIGHT, WIDTH, 1)
    assert data.train.x.dtype == dtype
    np.testing.assert_array_equal(data.train.x[0, ..., 0], wanted)
    np.testing.assert_allclose(data.inputs("train")[0, ..., 0], wanted / full, rtol=1e-6)
    assert said(data) == ()


def test_standardized_words_have_mean_0_and_variance_1(tmp_path: Path) -> None:
    wanted = values(np.uint16, 60000)
    inputs = load_data(str(folder_of(tmp_path, [Image.fromarray(wanted)], ".png"))).inputs("train")
    assert inputs.mean() == pytest.approx(0.0, abs=1e-5)
    assert inputs.std() == pytest.approx(1.0, rel=1e-5)


def test_mixed_depths_are_refused_by_name(tmp_path: Path) -> None:
    bytes_, words = values(np.uint8, 255), values(np.uint16, 60000)
    folder_of(tmp_path, [Image.fromarray(bytes_)], ".png")
    Image.fromarray(words).save(tmp_path / "b" / "deep.png")
    with pytest.raises(InputError, match=r"one depth.*8 bits \(.*00\.png.*16 bits \(.*deep\.png"):
        load_data(str(tmp_path))


def test_colours_of_16_bits_say_that_8_are_read(tmp_path: Path) -> None:
    """Pillow has no mode for them; the range is right, and the loss is said."""
    rows = b""
    for red in (0x1234, 0xFFFF, 0x00FF):
        rows += b"\0" + struct.pack(">3H", red, 0x8000, 0x0100)
    png = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">2I5B", 1, 3, 16, 2, 0, 0, 0)
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        png += struct.pack(">I", len(content)) + kind + content
        png += struct.pack(">I", zlib.crc32(kind + content))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for place in range(8):
            (tmp_path / name / f"{place}.png").write_bytes(png)
    data = load_data(str(tmp_path), normalize="none")
    np.testing.assert_array_equal(
        data.train.x[0, :, 0], [[0x12, 0x80, 0x01], [0xFF, 0x80, 0x01], [0x00, 0x80, 0x01]]
    )
    assert said(data) == ("16 images with 16 bits a channel: the upper 8 of them are read",)


RED = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
RED[..., 0] = values(np.uint8, 250)
GREY = Image.fromarray(values(np.uint8, 250))
ALPHA = Image.fromarray(values(np.uint8, 255).T.copy().reshape(HEIGHT, WIDTH))


def with_alpha(image: Any) -> Any:
    image = image.copy()
    image.putalpha(ALPHA)
    return image


def bits() -> Any:
    return Image.fromarray((values(np.uint8, 255) > 99).astype(np.uint8) * 255).convert("1")


@pytest.mark.parametrize(
    ("image", "suffix", "wanted", "note"),
    [
        (with_alpha(GREY), ".png", np.asarray(GREY)[..., None], "transparency: it is left out"),
        (with_alpha(Image.fromarray(RED)), ".png", RED, "with transparency: it is left out"),
        (Image.fromarray(RED).quantize(16), ".png", RED, "as the colours that they show"),
        (bits(), ".png", (np.asarray(bits()) * np.uint8(255))[..., None], "read as 0 and 255"),
        (Image.fromarray(RED).convert("CMYK"), ".tif", RED, "in CMYK: converted to RGB"),
    ],
    ids=["LA", "RGBA", "P", "1", "CMYK"],
)
def test_other_modes(
    image: Any, suffix: str, wanted: np.ndarray, note: str, tmp_path: Path
) -> None:
    data = load_data(str(folder_of(tmp_path, [image], suffix)), normalize="none")
    np.testing.assert_array_equal(data.train.x[0], wanted)
    assert data.notes[0].startswith("15 images ")
    assert note in data.notes[0]


def test_a_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(RED).quantize(16)
    folder_of(tmp_path, [image], ".png", transparency=bytes(range(16)))
    data = load_data(str(tmp_path), normalize="none")
    np.testing.assert_array_equal(data.train.x[0], RED)
    assert len(said(data)) == 2


UPRIGHT = np.arange(10, 10 + HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
# how the picture lies in the file, by the orientation that turns it back (EXIF 2.3, tag 274)
LYING = {
    1: UPRIGHT, 2: UPRIGHT[:, ::-1], 3: UPRIGHT[::-1, ::-1], 4: UPRIGHT[::-1], 5: UPRIGHT.T,
    6: UPRIGHT[:, ::-1].T, 7: UPRIGHT[::-1, ::-1].T, 8: UPRIGHT[::-1].T,
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_all_orientations_end_upright(suffix: str, tmp_path: Path) -> None:
    for number, pixels in LYING.items():
        exif = Image.Exif()
        exif[274] = number
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            lying = Image.fromarray(np.ascontiguousarray(pixels))
            lying.save(tmp_path / name / f"{number}{suffix}", exif=exif)
    data = load_data(str(tmp_path), normalize="none")
    assert stored(data) == {UPRIGHT.tobytes()}
    assert said(data) == ("14 images turned as their EXIF orientation says",)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".tif", ".webp"])
def test_the_first_of_several_frames(suffix: str, tmp_path: Path) -> None:
    other = Image.fromarray(np.asarray(GREY)[::-1].copy())
    how = {"lossless": True} if suffix == ".webp" else {}
    folder_of(tmp_path, [GREY], suffix, save_all=True, append_images=[other], **how)
    data = load_data(str(tmp_path), normalize="none")
    np.testing.assert_array_equal(data.train.x[0, ..., 0], np.asarray(GREY))
    assert "15 images with several frames or pages: the first is read" in data.notes


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_of(width: int, height: int, content: bytes) -> bytes:
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content))
        + chunk(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(width: int, height: int, tmp_path: Path) -> None:
    folder_of(tmp_path, [GREY], ".png")
    (tmp_path / "a" / "bomb.png").write_bytes(png_of(width, height, b"\0"))
    with pytest.raises(InputError, match=r"bomb\.png' must be readable and complete"):
        load_data(str(tmp_path))


def test_python_resizes_as_the_command_line_does(tmp_path: Path) -> None:
    folder_of(tmp_path, [Image.fromarray(values(np.uint8, 200))], ".png")
    named = load_data(DataOptions(str(tmp_path), resize=(6, 10)))
    for data in (
        load_data(str(tmp_path), resize=(6, 10)),
        as_dataset(str(tmp_path), resize=(6, 10)),
    ):
        assert data.input_shape == (6, 10, 1)
        np.testing.assert_array_equal(data.train.x, named.train.x)
    with pytest.raises(InputError, match=r"resize goes with images by path.*\(6, 10\)"):
        as_dataset((np.zeros((20, 3)), np.arange(20) % 2), resize=(6, 10))


def test_parts_are_folders_and_need_a_training_part(tmp_path: Path) -> None:
    images = [Image.fromarray(values(np.uint8, 200)), Image.fromarray(values(np.uint8, 90))]
    folder_of(tmp_path / "train", images * 6, ".png")
    folder_of(tmp_path / "validation", images, ".png")
    hidden = tmp_path / "train" / "a" / ".thumbnails"
    hidden.mkdir()
    images[0].save(hidden / "small.png")
    data = load_data(str(tmp_path))
    # 12 and 14 images in train, a part of which is split off for the test; 2 and 14 in validation
    assert (len(data.train) + len(data.test), len(data.val)) == (26, 16)
    (tmp_path / "val").mkdir()
    with pytest.raises(InputError, match=r"one validation part\. Received: val and validation\."):
        load_data(str(tmp_path))
    (tmp_path / "val").rmdir()
    (tmp_path / "train").rename(tmp_path / "rest")
    with pytest.raises(InputError, match=r"a folder train beside validation\. Received: none\."):
        load_data(str(tmp_path))


def test_progress_of_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path, [Image.fromarray(values(np.uint8, 200))], ".png")
    monkeypatch.setattr("compress.data.images.REPORT_INTERVAL", 8)
    told: list[tuple[str, float]] = []
    load_data(str(tmp_path), on_progress=lambda text, share: told.append((text, share)))
    # the headers and the pixels of 15 files
    assert told == [("reading images", done / 30) for done in (8, 16, 24, 30)]


def test_more_images_than_memory_are_mapped_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, spool = tmp_path / "photos", tmp_path / "spool"
    ramps = [Image.fromarray(values(np.uint8, high)) for high in range(200, 214)]
    folder_of(photos, ramps, ".png")
    in_memory = load_data(str(photos))
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   0 kB\n")
    monkeypatch.setattr(linux, "_PROC", tmp_path)
    monkeypatch.setattr(arrays, "MIN_MAPPED_BYTES", 40)
    monkeypatch.setattr("compress.data.images.CHUNK_BYTES", 40)  # three images
    monkeypatch.setenv(arrays.FOLDER_VARIABLE, str(spool))
    on_disk = load_data(str(photos))
    assert arrays.is_mapped(on_disk.train.x)
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(on_disk.split(part).x, in_memory.split(part).x)
        np.testing.assert_array_equal(on_disk.split(part).y, in_memory.split(part).y)
    monkeypatch.setattr(arrays.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(InputError, match=r"28 images of 5x3 pixels.*must fit onto the disk"):
        load_data(str(photos))


def test_memory_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("limit", "1000\n"), ("usage", "400\n"), ("none", "max\n")):
        (tmp_path / name).write_text(text)
    (tmp_path / "meminfo").write_text("MemAvailable:   2 kB\n")
    monkeypatch.setattr(linux, "_PROC", tmp_path)
    monkeypatch.setattr(linux, "_CGROUPS", ((tmp_path, "", "limit", "usage", "none"),))
    assert linux.measure_available_bytes() == 600
    monkeypatch.setattr(linux, "_CGROUPS", ((tmp_path, "", "none", "usage", "none"),))
    assert linux.measure_available_bytes() == 2048
    monkeypatch.setattr(linux, "_PROC", tmp_path / "absent")
    assert linux.measure_available_bytes() is None
    require_memory(10**30, "anything")


@pytest.mark.parametrize("kind", ["pipe", "loop", "dangling"])
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    folder_of(tmp_path, [GREY], ".png")
    path = tmp_path / "a" / "odd.png"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "loop" else tmp_path / "nothing")
    with pytest.raises(InputError, match=r"odd\.png' must be a file"):
        load_data(str(tmp_path))


def test_damage_at_every_place_is_one_line_or_harmless(tmp_path: Path) -> None:
    """Bit flips and cuts end in an image or in our error: never in one of Pillow's."""
    rng = np.random.default_rng(0)
    folder_of(tmp_path, [GREY], ".png")
    for suffix, how in ((".png", {}), (".tif", {"compression": "tiff_lzw"}), (".gif", {}),
                        (".jpg", {}), (".webp", {}), (".bmp", {}), (".pgm", {})):  # fmt: skip
        path = tmp_path / "a" / f"odd{suffix}"
        GREY.save(path, **how)
        whole = path.read_bytes()
        for _ in range(40):
            broken = bytearray(whole)
            for place in rng.integers(0, len(whole), 3):
                broken[place] ^= 1 << rng.integers(8)
            path.write_bytes(broken[: rng.integers(1, len(whole) + 1)])
            with contextlib.suppress(InputError):
                load_data(str(tmp_path))
        path.unlink()


def test_images_of_all_sizes_are_resized_where_it_is_asked(tmp_path: Path) -> None:
    wide, high = (Image.fromarray(np.full(size, 90, np.uint8)) for size in ((4, 12), (9, 3)))
    folder_of(tmp_path, [wide, high], ".png")
    with pytest.raises(InputError, match=r"12x4 .* and 3x9 .*--resize HEIGHT,WIDTH"):
        load_data(str(tmp_path))
    data = load_data(DataOptions(str(tmp_path), resize=(6, 8)))
    assert data.input_shape == (6, 8, 1)
    assert set(np.unique(data.train.x)) == {90}
    assert "images resized to 8x6 pixels (bilinear, smoothed)" in data.notes
    assert from_flat(Plan, {"resize": "6,8"}).data.resize == (6, 8)
    with pytest.raises(InputError, match="resize must be height,width"):
        from_flat(Plan, {"resize": "6"})
    with pytest.raises(
        InputError, match="resize goes with folders of images, .* Received: 6,8 for"
    ):
        load_data(DataOptions("digits", resize=(6, 8)))


@pytest.mark.parametrize(("dtype", "high"), [(np.uint8, 200), (np.uint16, 60000), (np.float32, 1)])
def test_a_ramp_is_resized_to_a_ramp(dtype: type[Any], high: float, tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, high, 16), (16, 16)).astype(dtype)
    folder_of(tmp_path, [Image.fromarray(ramp)], ".tif")
    data = load_data(DataOptions(str(tmp_path), resize=(8, 8)))
    assert data.train.x.dtype == dtype
    row = data.train.x[0, 4, 1:-1, 0].astype(np.float64)
    # halved, each pixel is the mean of its surroundings: of a ramp that of its two
    expected = ramp.astype(np.float64)[0].reshape(8, 2).mean(1)[1:-1]
    np.testing.assert_allclose(row, expected, atol=max(1e-6, 2e-5 * high) if high == 1 else 1.0)


def test_damaged_images_are_named_all_at_once(tmp_path: Path) -> None:
    folder_of(tmp_path, [Image.fromarray(values(np.uint8, 255))], ".png")
    (tmp_path / "a" / "broken.png").write_bytes(b"no image")
    with pytest.raises(
        InputError, match=r"broken\.png' must be readable .*\)\. Delete or replace it\.$"
    ):
        load_data(str(tmp_path))
    whole = (tmp_path / "a" / "00.png").read_bytes()
    (tmp_path / "b" / "torn.png").write_bytes(whole[: len(whole) - 30])
    with pytest.raises(
        InputError,
        match=r"broken\.png' must be .* 2 of 17 images cannot be read: also '.*/b/torn\.png'\. "
        r"Delete or replace them\.$",
    ):
        load_data(str(tmp_path))
    for path in sorted(tmp_path.rglob("*.png")):
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"17 of 17 images .* also ('[^']*',? ){4}and 12 more"):
        load_data(str(tmp_path))
