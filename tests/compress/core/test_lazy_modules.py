"""Keras and TensorFlow, imported at first use."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
from __future__ import annotations

import sys
from compress.core import device, lazy_modules
from compress.core.arguments import check_arguments
from compress.core.lazy_modules import keras
from compress.measure import counting
from compress.model import copies, file_formats, heads, io, layer_patches, layers, logits
from compress.model import ports, rebuild

@check_arguments()
def take(model: keras.Model, layer: keras.layers.Layer | None = None) -> None:
    pass

heavy = lambda: [name for name in ("keras", "tensorflow") if name in sys.modules]
print(heavy())
try:
    take(3)
except Exception as error:
    print(type(error).__name__, error)
print(heavy())
assert issubclass(lazy_modules.keras.Sequential, lazy_modules.keras.Model)
print(heavy())
assert lazy_modules.keras.Model is sys.modules["keras"].Model
assert lazy_modules.tf.float32 is sys.modules["tensorflow"].float32
try:
    lazy_modules.keras.no_such_name
except AttributeError as error:
    print(error)
"""


def test_they_are_imported_by_the_first_use_alone() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    before, refused, checked, used, missing = done.stdout.splitlines()
    assert before == checked == "[]"
    assert refused.startswith("InputError model must be a Keras model. Received: 3")
    assert used == "['keras', 'tensorflow']"
    assert "no_such_name" in missing
