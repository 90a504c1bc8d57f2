"""Files that are timed as they are: what they cost, and open sizes of theirs."""

from __future__ import annotations

from pathlib import Path

from compress.core.atomic_files import write_bytes
from compress.core.errors import InputError
from compress.exporting.tflite_sizes import resized
from compress.measure.graph_files import read_graph_file
from compress.measure.layer_costs import Analysis
from compress.model.input_sizes import InputShape, require_known, sizes_of
from compress.model.kinds import foreign


def of_file(path: Path, shape: InputShape | None, copy: Path) -> tuple[Analysis | None, Path]:
    """Returns what a file costs, and the file that is timed.

    Args:
        path: Of any kind.
        shape: Of one example, where a LiteRT file leaves sizes open.
        copy: Where one of known sizes is written then.

    Returns:
        The costs of a LiteRT file, None of another or where it cannot be read (its runtime says
        why), and `path` or `copy`.

    Raises:
        InputError: A size of a LiteRT file is open and not given, or what is given does not fit.
    """
    if foreign(path) is None:
        return None, path
    try:
        found = read_graph_file(path)
    except InputError:
        return None, path
    names = [port.name for port in found.inputs]
    own = [port.sizes for port in found.inputs]
    if all(None not in sizes for sizes in own):
        return found.costs, path
    what = f"'{path}'"
    sizes = sizes_of(what, list(zip(names, own, strict=True)), shape)
    require_known(what, names, sizes, "to be timed")
    shapes = [
        ((port.shape[0] if port.shape else None) or 1, *(size or 1 for size in size_))
        for port, size_ in zip(found.inputs, sizes, strict=True)
    ]
    write_bytes(copy, resized(path.read_bytes(), shapes))
    return read_graph_file(copy).costs, copy
