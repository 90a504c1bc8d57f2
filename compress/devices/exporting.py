"""Export for timing on another device: calls, whole models, scripts and a manifest."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.arguments import check_arguments
from compress.core.atomic_files import write_json, write_text
from compress.core.errors import InputError, RunFailed
from compress.core.quantities import MORE_THREADS, MOST_THREADS, parse_whole_number
from compress.core.summary import OnProgress, filled, silent
from compress.exporting.side_by_side import litert_files
from compress.measure.latency_table.measuring import CallItem, batches, empty_model
from compress.model.io import as_model
from compress.plan.fields import require, require_choice
from compress.plan.shrink import TIMED, ShrinkChannels
from compress.prune.channels.analysis import coupling_of
from compress.prune.channels.coupling.blocks import blocks_of
from compress.prune.channels.selection.allowed import allowed_for, ladder
from compress.prune.channels.selection.measured_times import (
    NETS,
    TimedCalls,
    some_choices,
    thinner_nets,
)
from compress.run.records import Record, load_record, too_low

if TYPE_CHECKING:
    import keras

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("measure.sh", "measure.py")
MANIFEST = "manifest.json"
FILES, RESULTS = "files", "results"
"""Folders: of what is timed, and of what was."""
EMPTY = "empty.tflite"
"""In each format the file of one operation on one number."""


@check_arguments()
def export_latency_table(
    model: keras.Model | str | Path,
    folder: str | Path,
    *,
    formats: Sequence[str] = ("int8",),
    threads: int = 1,
    round_to: int = ShrinkChannels.round_to,
    min_kept: float = ShrinkChannels.min_kept,
    input_shape: Any = None,
    seed: int = 0,
    on_progress: OnProgress = silent,
) -> Path:
    """Write the files and scripts that measure the latency of any channel counts on a device.

    One file of each call alone at some widths, one of next to nothing, some whole nets, and two
    scripts that time them: `measure.sh` with LiteRT's `benchmark_model` (over adb too),
    `measure.py` with NumPy and LiteRT's Python package. `import_latency_table` reads what they
    wrote.

    Args:
        model: A Keras model, or its file.
        folder: A new or empty folder.
        formats: Of the files: "float16", "dynamic", "int8"; float32 is always among them.
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
    # shares of a time are of the float32 file
    wanted = tuple(dict.fromkeys((TIMED[0], *formats)))
    for name in wanted:
        require_choice("format", name, TIMED)
    parse_whole_number(threads, "threads", least=1, most=MOST_THREADS, why=MORE_THREADS)
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
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".calls-") as hidden:
        made = Path(hidden) / "made"
        (made / RESULTS).mkdir(parents=True)
        files = {format: made / FILES / format for format in wanted}
        for part in files.values():
            part.mkdir(parents=True)
        on_progress("writing whole nets", 0.0)
        small = [empty_model(), *thinner_nets(coupling, kept)]
        nets = {format: _nets(small, part, net.name) for format, part in files.items()}
        on_progress(f"writing {len(calls)} calls", 0.2)
        rows: dict[str, list[dict[str, Any]]] = {format: [] for format in wanted}
        for batch in batches(calls):
            for format, part in files.items():
                rows[format] += _calls(batch, part, len(rows[format]))
            done = len(rows[wanted[0]]) / len(calls)
            on_progress(f"writing {len(calls)} calls", 0.2 + 0.8 * done)
        for name in SCRIPTS:
            script = made / name
            write_text(script, filled(TEMPLATES, f"{name}.jinja", threads=threads))
            script.chmod(0o755)
        write_json(
            made / MANIFEST,
            Manifest(
                net.name,
                threads,
                round_to,
                min_kept,
                tuple(tuple(map(int, row)) for row in kept),
                nets,
                rows,
                input_shape,
            ).to_json(),
        )
        if place.exists():
            place.rmdir()
        made.replace(place)
    return place


@dataclass(frozen=True)
class Manifest(Record):
    """Files of calls and nets.

    Attributes:
        model: Name of the model.
        threads: CPU threads that they are to be timed with.
        round_to, min_kept, input_shape: See `DeviceTimes`.
        kept: Removable units kept in each group by the whole nets.
        nets: For each format the files of whole nets, below files/.
        calls: For each format the calls.
    """

    model: str
    threads: int
    round_to: int
    min_kept: float
    kept: tuple[tuple[int, ...], ...]
    nets: dict[str, tuple[str, ...]]
    calls: dict[str, Any] = field(metadata={"shape": dict[str, list[dict[str, Any]]]})
    input_shape: Any = None

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return too_low(self, 1, "threads")

    def calls_of(self, format: str) -> list[CallFile]:
        """Return the calls of a format."""
        return [CallFile.from_json(row) for row in self.calls[format]]

    def files(self) -> list[str]:
        """Return all files that are to be timed, below files/."""
        found = []
        for format, nets in self.nets.items():
            found += [f"{format}/{EMPTY}", *nets]
            found += [call.file for call in self.calls_of(format) if call.file]
        return found


@dataclass(frozen=True)
class CallFile(Record):
    """A call alone.

    Attributes:
        key: Of the call, as JSON.
        ops: MACs and elementwise operations.
        weight_bytes: Of its weights, as float32.
        file: Below files/; empty: there is none.
        reason: Why there is none.
    """

    key: dict[str, Any]
    ops: int
    weight_bytes: int
    file: str
    reason: str = ""


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder of `export_latency_table`.

    Raises:
        InputError: The folder holds something else.
    """
    return load_record(
        folder / MANIFEST,
        Manifest,
        "The folder must be one that paretune latency-table export wrote",
    )


def _calls(batch: Sequence[CallItem], folder: Path, first: int) -> list[dict[str, Any]]:
    """Write a file of each call, numbered from `first`; returns the rows of the manifest."""
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as hidden:
        models = [item.model for item in batch if item.model is not None]
        files = iter(litert_files(models, Path(hidden), folder.name))
        for place, item in enumerate(batch, first):
            made = item.reason if item.model is None else next(files)
            row = CallFile(item.key.to_json(), item.ops, item.weight_bytes, "")
            if isinstance(made, str):
                row = replace(row, reason=made)
            else:
                row = replace(row, file=f"{folder.name}/call-{place:04}.tflite")
                made.replace(folder.parent / row.file)
            rows.append(row.to_json())
    return rows


def _nets(models: Sequence[keras.Model], folder: Path, name: str) -> tuple[str, ...]:
    """Write the empty file and those of whole nets; returns the latter.

    Raises:
        RunFailed: One could not be converted.
    """
    names = [EMPTY, *(f"net-{place}.tflite" for place in range(len(models) - 1))]
    with tempfile.TemporaryDirectory(dir=folder) as hidden:
        for own, made in zip(names, litert_files(models, Path(hidden), folder.name), strict=True):
            if isinstance(made, str):
                what = f"Model '{name}' must become a {folder.name} file to be timed"
                raise RunFailed(f"{what}: {made}")
            made.replace(folder / own)
    return tuple(f"{folder.name}/{own}" for own in names[1:])
