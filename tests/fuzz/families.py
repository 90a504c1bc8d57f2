"""Families of malformed inputs: each makes files in a folder and returns a command."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.damage import ODD_TEXTS, ODD_VALUES, damaged, pick, swapped

Rng = np.random.Generator


@dataclass(frozen=True)
class Shelf:
    """What families damage, made once: whole models and a whole run's folder.

    Attributes:
        models: Files by name, with their content.
        run: Files of a run's folder, by path in it.
    """

    models: dict[str, bytes]
    run: dict[str, bytes]


Family = Callable[[Rng, Path, Shelf], list[str]]

SEARCH = ("search", "--data", "digits", "--max-macs", "1")
"""A search that no model is cheap enough for: it ends before its first trial."""

TASKS = ("multiclass", "binary", "multilabel", "regression")


def _on_data(data: str, *more: str) -> list[str]:
    """A command that reads data and does little with them."""
    return ["space", "describe", "mlp", "--data", data, *more]


def npy(shape: object, content: bytes = b"", kind: str = "<f4") -> bytes:
    """Returns an .npy file whose header says what it is told to say."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def npz_members(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """Members of an .npz that are text, empty, too large, of other shapes, pickled, encrypted."""
    stream = io.BytesIO()
    np.save(stream, rng.integers(0, 255, (30, 4)).astype(np.uint8))
    members = {"x_train.npy": stream.getvalue()}
    stream = io.BytesIO()
    np.save(stream, np.arange(30) % 3)
    members["y_train.npy"] = stream.getvalue()
    big = 10 ** int(rng.integers(3, 20))
    odd = [
        b"text", b"", npy((4,), b"\0" * 15), npy((big, big)), npy((-1,)), npy((2**63, 0)),
        npy("(" + "1," * 70 + ")", b"\0" * 4), npy((30, 4), b"\0" * 480, "O"), npy("()", b"\0" * 4),
        npy((30,), b"\0" * 120, "<U1"), npy((30, 4), b"\0" * 960, "<c8"), npy((30, 0)),
        npy((0, 4)), npy((0,)), npy((30, 4), struct.pack("<f", float("nan")) * 120),
        damaged(rng, members["x_train.npy"]), b"\x93NUMPY", npy((30, 4), b"\0" * 480, "<f4,<f4"),
    ]  # fmt: skip
    names = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test", "weight_train",
             "class_names")  # fmt: skip
    for _ in range(int(rng.integers(1, 3))):
        members[f"{pick(rng, names)}.npy"] = pick(rng, odd)
    with zipfile.ZipFile(folder / "d.npz", "w", pick(rng, (0, 8))) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    content = (folder / "d.npz").read_bytes()
    if rng.random() < 0.2:  # encrypted, or of a compression that nobody has
        where = content.index(b"PK\1\2") + int(pick(rng, (8, 10)))
        content = content[:where] + bytes([content[where] | 97]) + content[where + 1 :]
        (folder / "d.npz").write_bytes(content)
    return _on_data("d.npz", "--task", pick(rng, TASKS))


def npz_arrays(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """Whole arrays of odd shapes, types, sizes and values; zero examples; 0-d class names."""
    n = int(pick(rng, (0, 1, 2, 5, 30)))
    shapes: list[Any] = [(n,), (n, 4), (n, 0), (n, 4, 4), (n, 0, 4), (n, 2, 2, 2, 2), ()]
    kinds = ("f4", "f8", "f2", "u1", "i8", "u8", "?", "c8", "U3", "S2", "M8[s]")

    def array() -> Any:
        values = rng.integers(-3, 300, pick(rng, shapes)).astype(np.float64)
        if rng.random() < 0.2 and values.size:
            values.flat[0] = pick(rng, (np.nan, np.inf, 1e300, -1e300))
        with np.errstate(all="ignore"):
            return (
                values.astype("f8").astype(pick(rng, kinds[:3]))
                if rng.random() < 0.4
                else (
                    np.nan_to_num(values, nan=0, posinf=9, neginf=9)
                    .clip(-9, 200)
                    .astype("i8")
                    .astype(pick(rng, kinds))
                )
            )

    arrays = {"x_train": array(), "y_train": array()}
    if rng.random() < 0.4:
        arrays |= {"x_train": rng.normal(size=(30, 4)), "y_train": np.arange(30) % 3}
    for name in ("x_val", "y_val", "x_test", "y_test", "weight_train"):
        if rng.random() < 0.2:
            arrays[name] = array()
    if rng.random() < 0.3:
        arrays["class_names"] = pick(
            rng, [np.array("cat"), np.array(["a", "b", "c"]), np.array([1, 2]), np.array([[1]]),
                  np.array([0.5]), np.array([], "U1"), np.array(["a\nb", "\x1b[2J", "x" * 9000])],
        )  # fmt: skip
    np.savez(folder / "d.npz", **arrays)
    return _on_data("d.npz", "--task", pick(rng, TASKS))


def npz_files(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """Files that are no archive, corrupt ones, and bombs."""
    path = folder / "d.npz"
    save = pick(rng, (np.savez, np.savez_compressed))
    save(path, x_train=rng.normal(size=(40, 3)), y_train=np.arange(40) % 2)
    how = int(rng.integers(6))
    if how == 0:
        np.save(folder / "d.npy", np.zeros(4))
        (folder / "d.npy").replace(path)
    elif how == 1:  # what is declared is far more than there is
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x_train.npy", npy((2**40, 9), zlib.compress(b"\0" * 9)))
            archive.writestr("y_train.npy", npy((9,), b"\0" * 36))
        content = bytearray(path.read_bytes())
        where = content.index(b"PK\1\2") + 24
        content[where : where + 4] = b"\xfe\xff\xff\xff"
        path.write_bytes(content)
    else:
        path.write_bytes(damaged(rng, path.read_bytes()))
    return _on_data("d.npz", "--task", pick(rng, TASKS))


def idx(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """IDX files of any rank and size, gzipped or not, whole or corrupt."""
    (folder / "d").mkdir()
    for part, shape in (("images-idx3", (30, 4, 4)), ("labels-idx1", (30,))):
        kind, size = pick(rng, (8, 8, 8, 9, 13, 14, 7)), shape
        if rng.random() < 0.3:
            rank = int(pick(rng, (0, 1, 2, 4, 9, 65, 255)))
            size = tuple(int(pick(rng, (0, 1, 2**16, 2**31, 2**32 - 1))) for _ in range(rank))
        header = bytes([0, 0, kind, len(size)]) + struct.pack(f">{len(size)}I", *size)
        values = rng.integers(0, 3, int(np.prod(shape))).astype(np.uint8).tobytes()
        content = header + values
        suffix = pick(rng, ("", ".gz"))
        content = gzip.compress(content) if suffix else content
        if rng.random() < 0.5:
            content = damaged(rng, content)
        path = folder / "d" / f"train-{part}-ubyte{suffix}"
        if rng.random() < 0.05:
            os.mkfifo(path)
        else:
            path.write_bytes(content)
    return _on_data("d", "--task", pick(rng, TASKS))


def images(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """Folders of images: bombs, mixed depths and sizes, pipes, loops, corrupt files."""
    from PIL import Image

    for name in ("a", "b\n[/b]"):
        home = folder / "d" / name
        home.mkdir(parents=True)
        for place in range(6):
            pixels = rng.integers(0, 255, (5, 5)).astype(np.uint8)
            Image.fromarray(pixels).save(home / f"{place}.png")
    odd = folder / "d" / "a" / f"odd{pick(rng, ('.png', '.tif', '.gif', '.jpg', '.webp', '.bmp'))}"
    how = int(rng.integers(6))
    if how == 0:
        size = struct.pack(">2I", *(int(pick(rng, (0, 1, 60_000, 2**31 - 1))) for _ in range(2)))
        chunk = b"IHDR" + size + b"\x08\x00\x00\x00\x00"
        head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
        odd.write_bytes(head + struct.pack(">I", zlib.crc32(chunk)) + rng.bytes(40))
    elif how == 1:
        Image.fromarray(rng.integers(0, 9999, (5, 5)).astype(np.uint16)).save(
            odd.with_suffix(".png")
        )
    elif how == 2:
        pick(rng, (os.mkfifo, os.mkdir, lambda path: path.symlink_to(path)))(odd)
    else:
        mode = pick(rng, ("L", "RGB", "P", "RGBA", "LA", "1", "CMYK", "F", "I"))
        stream = io.BytesIO()
        kind = {"CMYK": "TIFF", "F": "TIFF", "I": "TIFF"}.get(mode, pick(rng, ("PNG", "TIFF")))
        Image.new(mode, (5, 5)).save(stream, kind)
        odd.write_bytes(damaged(rng, stream.getvalue()) if how > 3 else stream.getvalue())
    return _on_data("d")


def functions(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """`module:function` that is missing, wants arguments, raises, leaves, or returns anything."""
    name = f"mine{int(rng.integers(10**9))}"
    bodies = (
        "def f(): return 4", "def f(a): return a", "def f(): raise ValueError('a\\nb')",
        "raise SystemExit(3)", "def f(): exit()", "def f(:", "f = 5", "import nosuch",
        "def f(): return __import__('compress').load_data('digits')", "\0", "def f(): return f()",
        "def f():\n import numpy as n; from compress.data import Split, Dataset, Preprocessing\n"
        " s = Split(n.zeros((4, 2)), n.zeros(4, int))\n"
        " return Dataset('d', s, s, s, ('a',), Preprocessing())",
    )  # fmt: skip
    (folder / f"{name}.py").write_text(pick(rng, bodies))
    known = ("os:system", "os:getcwd", "builtins:print", "json:loads", "..:f", "a.b:c", ":f", "os:",
             "os:path:join", "math:nosuch", *[f"{name}:f"] * 5, f"{name}:g")  # fmt: skip
    return _on_data(pick(rng, known))


def paths(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """Paths that are over-long, loops, pipes, devices, folders, or hold odd characters."""
    (folder / "loop.npz").symlink_to(folder / "loop.npz")
    (folder / "dangling.keras").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.npz")
    os.mkfifo(folder / "pipe.keras")
    (folder / "folder.keras").mkdir()
    (folder / "empty").mkdir()
    (folder / "text.keras").write_text("x")
    found = ("loop.npz", "pipe.npz", "pipe.keras", "dangling.keras", "folder.keras", "empty",
             "text.keras", "x" * 300, "x/" * 3000, "/dev/zero", "/dev/null", "/proc/self/mem",
             "a\nb.keras", "\x1b[2J.npz", "é\u202e.keras", "-", ".", "..", "/", "text.keras/x",
             "x" * 251 + ".npz", "\udcff.npz", "[/b].keras", "~", "")  # fmt: skip
    path = pick(rng, found)
    return pick(rng, (
        _on_data(path), ["inspect", path], ["report", path], ["bench", path, "--out", "new"],
        ["compress", path, "--data", "digits"], ["run", "--plan", path, "--data", "nowhere"],
        ["compress", "text.keras", "--data", path], ["run", "--data", "nowhere", "--out", path],
        ["run", "--data", path], [*SEARCH, "--warm-start", path],
        ["run", "--data", "nowhere", "--teacher", path],
        ["inspect", "text.keras", "--out", path], ["bench", "text.keras", path],
    ))  # fmt: skip


def plans(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """TOML plans: types swapped, deep brackets, endless numbers, NUL, unicode, damage."""
    from compress.plan.nesting import to_nested
    from search.plan import SearchPlan

    how = int(rng.integers(8))
    if how == 0:
        depth = int(10 ** rng.uniform(1, 5))
        text = pick(rng, (f"x = {'[' * depth}", "[a" + ".a" * depth + "]", "x = " + "{a=" * depth))
    elif how == 1:
        digits = "9" * int(10 ** rng.uniform(1, 4))
        key = pick(rng, ("seed", "[search]\ntrials", "[latency]\nbudget", "[data]\nsource", "data"))
        text = f"{key} = {pick(rng, ('', '-', '0x', '1e', '0.'))}{digits}"
    elif how == 2:
        text = f"{pick(rng, ('data', 'search', 'out', 'channels', 'nosuch', 'threads'))} = 5"
    else:
        lines: dict[str, Any] = swapped(rng, to_nested(SearchPlan()))
        text = _toml(lines)
    content = text.encode("utf-8", "surrogatepass")
    if how == 7:
        content = damaged(rng, content)
    (folder / "p.toml").write_bytes(content)
    data = ["--data", "nowhere"] if rng.random() < 0.8 else []
    command = pick(rng, ("run", "search"))
    if how == 2 and not data:
        data = ["--data", "nowhere"]
    return [command, "--plan", "p.toml", *(data or ["--data", "no/such/path"])]


def _toml(content: Any) -> str:
    """Writes what TOML can hold of nested values."""
    if not isinstance(content, dict):
        return f"x = {json.dumps(content)}"
    plain = {key: value for key, value in content.items() if not isinstance(value, dict)}
    text = "".join(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in plain.items()
                   if value is not None)  # fmt: skip
    for key, value in content.items():
        if isinstance(value, dict):
            text += f"[{json.dumps(key)}]\n" + "".join(
                f"{json.dumps(name)} = {json.dumps(item)}\n"
                for name, item in value.items()
                if item is not None and not isinstance(item, dict)
            )
    return text


def records(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """A run's folder whose JSON has other types, is nested, corrupt, empty or a pipe."""
    for name, content in shelf.run.items():
        path = folder / "r" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    files = sorted(name for name in shelf.run if name.endswith(".json"))
    path = folder / "r" / pick(rng, files)
    how = int(rng.integers(12))
    if how == 0:
        path.write_bytes(damaged(rng, path.read_bytes()))
    elif how == 1:
        deep = "[" * int(10 ** rng.uniform(1, 5))
        path.write_text(pick(rng, (deep, "", "null", "5", "[]", "NaN", '{"x": 1e999}', "\0",
                                   '{"seed": ' + "9" * 5000 + "}")))  # fmt: skip
    elif how == 2:
        path.unlink()
        pick(rng, (os.mkfifo, os.mkdir, lambda place: place.symlink_to(place)))(path)
    else:
        odd = swapped(rng, json.loads(path.read_bytes()))
        path.write_text(json.dumps(odd))
    words = ["report", "r"]
    if rng.random() < 0.15:
        words = [*SEARCH, "--warm-start", str(path)]
    elif rng.random() < 0.15:
        words = ["search", "--data", "digits", "--space", "mlp", "--warm-start", "r", "--out", "r"]
    elif rng.random() < 0.1:
        words = ["run", "--data", "digits", "--out", "r"]  # the plan of another run
    return words


def models(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """Model files: corrupt, of other kinds, with odd configs, sizes and weights."""
    name = pick(rng, sorted(name for name in shelf.models if not name.endswith(".tflite")))
    content = shelf.models[name]
    path = folder / name
    how = int(rng.integers(6))
    if how == 0 and name.endswith(".keras"):
        content = _rewritten(rng, content, "config.json")
    elif how == 1 and name.endswith(".keras"):
        content = _rewritten(rng, content, "metadata.json")
    elif how == 2 and name.endswith(".h5"):
        path.write_bytes(content)
        _odd_config(rng, path)
        content = path.read_bytes()
    elif how == 3:
        content = pick(rng, (b"", b"text", b"PK\3\4", b"\x89HDF\r\n\x1a\n", rng.bytes(3000)))
    elif how in (4, 5) and not name.startswith("odd"):
        content = damaged(rng, content)
    path.write_bytes(content)
    shape = str(pick(rng, ("0,0,3", "1000000,1000000,3", "9" * 30 + ",1,1", "8,8,1", "a,b", "-1")))
    return pick(rng, (
        ["inspect", name], ["inspect", name, "--input-shape", shape],
        ["bench", name, "--out", "new", "--budget", "0.05", "--input-shape", shape],
        ["compress", name, "--data", "nowhere"], ["inspect", name, "--out", "m.json"],
    ))  # fmt: skip


def graphs(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """LiteRT files and SavedModels' folders: corrupt, empty, of something else; looked at."""
    name = pick(rng, sorted(name for name in shelf.models if name.endswith(".tflite")))
    content = damaged(rng, shelf.models[name])
    if rng.random() < 0.2:
        content = pick(rng, (b"", b"text", b"\x1c\0\0\0TFL3", b"\0\0\0\0TFL3" + rng.bytes(3000)))
    (folder / name).write_bytes(content)
    (folder / "saved").mkdir()
    if rng.random() < 0.7:
        (folder / "saved" / "saved_model.pb").write_bytes(pick(rng, (b"", content)))
    shape = str(pick(rng, ("8,8,1", "input=8,8,1", "nothing=1", "1000000,1000000,3", "=", "a=b")))
    return pick(rng, (
        ["inspect", name], ["inspect", name, "--input-shape", shape],
        ["inspect", name, "--out", "m.json"], ["inspect", name, "--signature", "x"],
        ["inspect", "saved"], ["compress", name, "--data", "digits"],
        ["compress", "saved", "--data", "digits"],
    ))  # fmt: skip


def _rewritten(rng: Rng, content: bytes, member: str) -> bytes:
    """Swaps values in a JSON member of a .keras file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            held = old.read(name)
            if name == member:
                held = json.dumps(swapped(rng, json.loads(held))).encode()
            new.writestr(name, held)
    return stream.getvalue()


def _odd_config(rng: Rng, path: Path) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        if rng.random() < 0.3:
            file.attrs["keras_version"] = "2.9.0"
        if rng.random() < 0.5:
            layer = pick(rng, config["config"]["layers"])
            layer["class_name"] = pick(
                rng, [value for value in ODD_VALUES if value is not ...][:-2]
            )
        else:
            config = swapped(rng, config)
        file.attrs["model_config"] = json.dumps(config)


def options(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """Options of every command with texts that no option means."""
    from compress.plan import Plan
    from compress.plan.bench import BenchPlan
    from compress.plan.fields import list_plan_fields
    from search.plan import SearchPlan

    (folder / "m.keras").write_bytes(shelf.models["small.keras"])
    command, plan = pick(rng, (("run", SearchPlan), ("search", SearchPlan), ("compress", Plan),
                               ("bench", BenchPlan)))  # fmt: skip
    words = [command]
    words += {"compress": ["m.keras"], "bench": ["m.keras"]}.get(command, [])
    for _ in range(int(rng.integers(1, 4))):
        leaf = pick(rng, list_plan_fields(plan))
        if leaf.path in ("data.source", "out", "search.study.storage"):
            continue
        words.append(leaf.flag)
        if leaf.hint is not bool:
            words.append(pick(rng, ODD_TEXTS).replace("\0", ""))
    # nothing begins: there are no data, and no second model
    return [*words, *(["--compare", "m,n"] if command == "bench" else ["--data", "nowhere"])]


QUANTITIES = (
    "3", "0.5", "0", "-1", "1e3", "1e-3", "nan", "inf", "1e400", "3m", "12M", "200KB", "1.5MiB",
    "3ms", "250us", "0.1s", "90s", "1h30m", "2d", "0.5x", "2x", "0x", "-2x", "2x smaller",
    "2x faster", "2x slower", "half", "50%", "50 %", "120%", "-5%", "5 0%", "%", "x", "ms", "1,5ms",
    "1_000", "1__0", "9" * 40, "9" * 5000, "3 ms", " 3ms ", "3Ms", "3µs", "٣ms", "1e99G", ".5x",
    "5.", "+3ms", "3e2ms", "0.5xx", "0.5 x smaller", "", " ", "None", "{}",
)  # fmt: skip
"""What people write for numbers with a unit, and what nobody should."""


def units(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """Numbers with units of any dimension, on the command line, in TOML and in goals of a run."""
    (folder / "m.keras").write_bytes(shelf.models["small.keras"])
    names = ("latency", "size", "peak-memory", "macs", "params", "budget", "max-drop", "memory",
             "val-fraction", "latency-budget")  # fmt: skip
    searched = ("max-macs", "max-size", "max-latency", "max-minutes", "trial-minutes", "sparsity",
                "min-kept", "channels", "sparsity-end", "temperature",
                "weight-overrides")  # fmt: skip
    text = pick(rng, QUANTITIES)
    kind = int(rng.integers(4))
    if kind == 0:
        return ["shrink", "m.keras", "--data", "nowhere", f"--{pick(rng, names)}", text]
    if kind == 1:
        return ["run", "--data", "nowhere", f"--{pick(rng, names[:5])}", text]
    if kind == 2:
        section, name = pick(rng, (("goal", "latency"), ("goal", "size"), ("goal", "budget"),
                                   ("latency", "budget"), ("weights", "sparsity")))  # fmt: skip
        value = pick(rng, (_toml(text), _toml([text]), text or "3"))
        (folder / "p.toml").write_text(f"[{section}]\n{name} = {value}\n")
        return ["shrink", "m.keras", "--data", "nowhere", "--plan", "p.toml"]
    return ["search", "--data", "nowhere", f"--{pick(rng, searched)}", text]


def folders(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """Output folders that are files, loops, others' runs, corrupt or not there; refused goals."""
    (folder / "m.keras").write_bytes(shelf.models["small.keras"])
    place = pick(rng, ("out", "runs/shrink-m", "runs", "a/b/c", ".", "..", "m.keras", "out/", "~x"))
    kind = int(rng.integers(6))
    target = folder / place
    if kind == 0 and place not in (".", "..", "m.keras"):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("a file")
    elif kind == 1 and place not in (".", "..", "m.keras", "runs"):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(target.name)
    elif kind == 2 and place != "m.keras":
        target.mkdir(parents=True, exist_ok=True)
        (target / "mine.txt").write_text("mine")
    elif kind == 3 and place not in ("m.keras", "..", "."):
        target.mkdir(parents=True, exist_ok=True)
        (target / "plan.json").write_bytes(damaged(rng, b'{"format": 1, "command": "shrink"}'))
    elif kind == 4 and place not in ("m.keras", "..", "."):
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(0o555)
    words = [] if rng.random() < 0.3 else ["--out", place]
    goal = pick(rng, (("--macs", "1"), ("--macs", "0.00001x"), ("--params", "1")))
    return ["shrink", "m.keras", "--data", "digits", *goal, "--no-train", *words]


def recipes(rng: Rng, folder: Path, shelf: Shelf) -> list[str]:
    """Recipes: by names that there are not, and TOML that is corrupt, nested or of other types."""
    (folder / "m.keras").write_bytes(shelf.models["small.keras"])
    good = b'[goal]\nlatency = "0.5x"\nmax_drop = 1.0\n[export]\nformats = ["int8"]\n'
    kind = int(rng.integers(5))
    name = "r.toml"
    if kind == 0:
        (folder / name).write_bytes(damaged(rng, good))
    elif kind == 1:
        content = swapped(rng, {"goal": {"latency": "0.5x", "max_drop": 1.0},
                                "export": {"formats": ["int8"]}})  # fmt: skip
        (folder / name).write_text(_toml(content) if isinstance(content, dict) else str(content))
    elif kind == 2:
        name = pick(rng, ("mobile-int8", "untrained", "none", "", "../x", "a.json", "m.keras", "."))
    elif kind == 3:
        key, text = pick(rng, ("latency", "size", "macs", "nope")), pick(rng, QUANTITIES)
        (folder / name).write_text(f"[goal]\n{key} = {_toml(text)}\n")
    else:
        (folder / name).mkdir()
    words = ["--recipe", name]
    if rng.random() < 0.3:
        words += ["--save-recipe", pick(rng, ("s.toml", "s", "x/s.toml", "/", "m.keras"))]
    return ["shrink", "m.keras", "--data", "nowhere", *words]


FAMILIES: dict[str, Family] = {
    family.__name__: family
    for family in (npz_members, npz_arrays, npz_files, idx, images, functions, paths, plans,
                   records, models, options, graphs, units, folders, recipes)
}  # fmt: skip
