"""Layers of others whose files Keras cannot read: their configs tell more than they take."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress.model.rebuild import of_class


@contextmanager
def lenient(path: Path) -> Iterator[None]:
    """Lets Keras make layers of others of configs with more in them than constructors take.

    Args:
        path: A `.keras` file; of another one nothing changes.
    """
    import keras

    with keras.saving.custom_object_scope(_stand_ins(path)):
        yield


def _stand_ins(path: Path) -> dict[str, Any]:
    """Returns what stands for each class of others in a file, by its registered name."""
    import keras

    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    found = {}
    for name, module, class_name in sorted(_classes(config)):
        # Keras has tried before: what it knows and may import is there
        kind = keras.saving.get_registered_object(name)
        kind = kind or getattr(sys.modules.get(module), class_name, None)
        if isinstance(kind, type) and issubclass(kind, keras.layers.Layer):
            found[name] = _standing_in(kind)
    return found


def _classes(config: Any) -> set[tuple[str, str, str]]:
    """Returns registered name, module and name of the classes in a config that are not Keras's."""
    if isinstance(config, list):
        return {item for part in config for item in _classes(part)}
    if not isinstance(config, dict):
        return set()
    name, module, kind = (
        str(config.get(key) or "") for key in ("registered_name", "module", "class_name")
    )
    inside = {item for part in config.values() for item in _classes(part)}
    foreign = name and kind and not module.startswith("keras.")
    return inside | ({(name, module, kind)} if foreign else set())


def _standing_in(kind: Any) -> Any:
    """Returns a class that makes layers of another one."""

    def from_config(config: dict[str, Any]) -> Any:
        return of_class(kind, config)

    return type(kind.__name__, (), {"from_config": staticmethod(from_config)})
