"""Which kind of source a name is: found out without reading it."""

from __future__ import annotations

from pathlib import Path

from compress.core.errors import InputError, nearest
from compress.core.plugins import FILES, FOLDERS, HUBS, SOURCES
from compress.data import digits, folder, keras_datasets
from compress.data.kinds import Asked, Kind, ending
from compress.data.parts import RawData
from compress.data.tasks import has_classes, needs_labels
from compress.plan import DataOptions

_OF_CLASSES = (digits.load, keras_datasets.load)
_MARKED = "tables and .npz files (in Python, with arrays, {}=)"
_TAKERS = {
    "resize": "folders of images, TFRecords and tfds:NAME",
    "label": "tables and TFRecords",
    "group_column": _MARKED.format("groups"),
    "time_column": _MARKED.format("time"),
}
"""Options that go with some kinds of sources alone, and with which."""


def check_source(options: DataOptions) -> Kind | None:
    """Finds out what reads a source, without reading it.

    Returns:
        The kind of source; None: it is the user's own function.

    Raises:
        InputError: No source is named, it does not exist, is of no known kind, or does not
            have what the task needs.
        MissingDependency: A package that reads it is not installed.
    """
    options.require_source()
    source, task = options.source, options.task
    kind = _kind(source)
    if kind is None:
        return None
    of_classes = options.told or has_classes(task) or not needs_labels(task)
    if kind.of_classes and not of_classes:
        raise InputError(
            f"A {task} task must come from an .npz file, a table, records or module:function. "
            f"Received: '{source}'."
        )
    for name, takers in _TAKERS.items():
        value = getattr(options, name)
        if value and name not in kind.takes:
            shown = value if isinstance(value, str) else ",".join(map(str, value))
            raise InputError(f"{name} goes with {takers}. Received: {shown} for '{source}'.")
    return kind


def _kind(source: str) -> Kind | None:
    """Returns what reads a source; None: it is the user's own function."""
    hub, colon, _ = source.partition(":")
    if colon and hub in HUBS:
        HUBS.require_installed(hub)
        found: Kind = HUBS[hub]
        return found
    if colon and not Path(source).exists() and "/" not in hub:
        return None
    if source in SOURCES:
        return _named(source)
    path = Path(source)
    if not path.exists():
        raise InputError(
            f"data must be a path that exists, a known name ({', '.join(SOURCES)}), "
            f"{', '.join(f'{name}:NAME' for name in HUBS)} or module:function. "
            f"Received: '{source}'."
            + "".join(f" Did you mean '{name}'?" for name in nearest(source, SOURCES))
        )
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise InputError(
            f"data must be a file or a folder. Received: '{source}', which is neither (a pipe?)."
        )
    return _of_file(path)


def _named(source: str) -> Kind:
    """Returns the kind of a data set that is known by its name."""
    load = SOURCES[source]

    def read(name: str, _: Asked) -> RawData:
        raw: RawData = load(name)
        return raw

    return Kind(read, of_classes=load in _OF_CLASSES)


def _of_folder(path: Path) -> Kind:
    kinds: list[Kind] = [FOLDERS[name] for name in FOLDERS]
    return next((kind for kind in kinds if kind.holds(path)), folder.KIND)


def _of_file(path: Path) -> Kind:
    name = ending(path.name)
    if name not in FILES:
        *others, last = (f".{known}" for known in FILES)
        raise InputError(
            f"A data file must end in {', '.join(others)} or {last}. Received: '{path}'."
        )
    FILES.require_installed(name)
    kind: Kind = FILES[name]
    return kind
