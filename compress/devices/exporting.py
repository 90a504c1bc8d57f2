"""Writes what is to be timed on another device: single calls, whole nets, and the scripts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.atomic_files import write_json, write_text
from compress.core.counts import MORE_THREADS, MOST_THREADS, whole
from compress.core.errors import InputError, RunFailed
from compress.core.templates import filled
from compress.devices.manifest import EMPTY, FILES, MANIFEST, RESULTS, Manifest
from compress.exporting.side_by_side import litert_files
from compress.measure.latency_table.calls import batches, empty_model
from compress.model.io import as_model
from compress.plan.fields import require, require_choice
from compress.plan.goal import TIMED
from compress.plan.shrink import ShrinkChannels
from compress.prune.channels.analysis import coupling_of
from compress.prune.channels.coupling.blocks import blocks_of
from compress.prune.channels.selection.allowed import allowed_for, ladder
from compress.prune.channels.selection.measured_times import NETS, some_choices, thinner_nets
from compress.prune.channels.selection.timed_calls import TimedCalls

if TYPE_CHECKING:
    import keras

    from compress.pipeline.context import OnProgress

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("measure.sh", "measure.py")


def export_latency_table(
    model: keras.Model | str | Path,
    folder: str | Path,
    *,
    formats: Sequence[str] = ("float32", "int8"),
    threads: int = 1,
    round_to: int = ShrinkChannels.round_to,
    min_kept: float = ShrinkChannels.min_kept,
    input_shape: Any = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Path:
    """Writes what tells the time of every choice of widths and blocks on a device.

    One file of each call alone at some widths, one of next to nothing, some whole nets, and two
    scripts that time them: `measure.sh` with LiteRT's `benchmark_model` (over adb too),
    `measure.py` with NumPy and LiteRT's Python package. `import_latency_table` reads what they
    wrote.

    Args:
        model: A Keras model, or its file.
        folder: A new or empty folder.
        formats: Of the files: "float32", "float16", "dynamic", "int8".
        threads: CPU threads that the scripts time with.
        round_to, min_kept: Of `ChannelOptions`: which widths come into question. `shrink` must
            be told the same.
        input_shape: Sizes of one example, where the model leaves them open.
        seed: Of the whole nets' widths.
        on_progress: Told what is done now, and the share of all that is done.

    Returns:
        The folder.

    Raises:
        InputError: The folder holds something, an argument breaks its rule, or the model has no
            channels to remove.
        RunFailed: A whole net could not be converted.

    Example:
        >>> made = export_latency_table(model, folder / "phone", formats=["float32"], round_to=4)
        >>> sorted(path.name for path in made.iterdir())
        ['files', 'manifest.json', 'measure.py', 'measure.sh', 'results']
    """
    place = Path(folder)
    require(
        not place.exists() or (place.is_dir() and not any(place.iterdir())),
        "folder", "be new or empty", f"'{place}'",
    )  # fmt: skip
    require(bool(formats), "formats", "name at least one format", "none")
    for name in formats:
        require_choice("format", name, TIMED)
    whole(threads, "threads", least=1, most=MOST_THREADS, why=MORE_THREADS)
    options = ShrinkChannels(round_to=round_to, min_kept=min_kept)
    net = as_model(model)
    coupling = coupling_of(net, input_shape)
    if not coupling.groups:
        raise InputError(
            f"Model '{net.name}' must have channels that can be removed. Received: none."
        )
    allowed = allowed_for(coupling, options, ladder(options)[-1])
    calls = TimedCalls(coupling, allowed, blocks_of(coupling)).models()
    kept = some_choices(allowed, NETS, seed)
    told = on_progress or _nobody
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".calls-") as hidden:
        made = Path(hidden) / "made"
        nets, rows = {}, {}
        for count, format in enumerate(dict.fromkeys(formats)):
            part = made / FILES / format
            part.mkdir(parents=True)
            told(f"writing {len(calls)} calls as {format}", count / len(formats))
            rows[format] = _calls(calls, part, format)
            told(f"writing {len(kept)} whole nets as {format}", (count + 0.7) / len(formats))
            nets[format] = _nets(thinner_nets(coupling, kept), part, format, net.name)
        (made / RESULTS).mkdir()
        for name in SCRIPTS:
            script = made / name
            text = filled(TEMPLATES, f"{name}.jinja", threads=threads)
            write_text(script, text)
            script.chmod(0o755)
        manifest = Manifest(
            net.name, threads, round_to, min_kept,
            tuple(tuple(map(int, row)) for row in kept), nets, rows, input_shape,
        )  # fmt: skip
        write_json(made / MANIFEST, manifest.to_json())
        if place.exists():
            place.rmdir()
        made.replace(place)
    told("written", 1.0)
    return place


def _calls(models: Any, folder: Path, format: str) -> list[dict[str, Any]]:
    """Writes a file of each call, and one of next to nothing; returns the rows of the manifest."""
    rows: list[dict[str, Any]] = []
    for batch in batches(models):
        with tempfile.TemporaryDirectory(dir=folder) as hidden:
            small = [empty_model(), *(item.model for item in batch if item.model is not None)]
            files = iter(litert_files(small, Path(hidden), format))
            empty = next(files)
            if isinstance(empty, str):
                raise RunFailed(f"An empty file must be made ({format}): {empty}")
            empty.replace(folder / EMPTY)
            for item in batch:
                name, reason = "", item.reason
                if item.model is not None:
                    found = next(files)
                    if isinstance(found, str):
                        reason = found
                    else:
                        name = f"{format}/call-{len(rows):04}.tflite"
                        found.replace(folder.parent / name)
                rows.append(
                    {
                        "key": item.key.to_json(), "ops": item.ops,
                        "weight_bytes": item.weight_bytes, "file": name, "reason": reason,
                    }
                )  # fmt: skip
    return rows


def _nets(nets: list[Any], folder: Path, format: str, name: str) -> tuple[str, ...]:
    """Writes whole nets; returns their files.

    Raises:
        RunFailed: One could not be converted.
    """
    found = []
    with tempfile.TemporaryDirectory(dir=folder) as hidden:
        for place, file in enumerate(litert_files(nets, Path(hidden), format)):
            if isinstance(file, str):
                raise RunFailed(f"Model '{name}' must become a {format} file to be timed: {file}")
            shutil.move(file, folder / f"net-{place}.tflite")
            found.append(f"{format}/net-{place}.tflite")
    return tuple(found)


def _nobody(_: str, __: float) -> None:
    """Is told of the progress where nobody asks."""
