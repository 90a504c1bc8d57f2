"""How many of our files and functions a call runs through.

    python -m tests.trace_calls [prune_channels|shrink] [--list]

`prune_channels`: `pt.prune_channels(model, macs=0.5)` of a four-layer CNN. `shrink`:
`pt.shrink(model, data, latency=0.5)` of the same CNN, without training. The first call counts what
it imports, too (bodies of classes, calls that modules make); the second one does not. What runs in
other processes never counts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGES = tuple(str(ROOT / name) + "/" for name in ("compress", "search", "paretune"))


@dataclass
class Trace:
    """What a call ran.

    Attributes:
        functions: Our functions, and how often each was called.
        depth: The most of our frames that stood on one another.
    """

    functions: Counter[CodeType] = field(default_factory=Counter)
    depth: int = 0

    @property
    def files(self) -> dict[str, int]:
        """Our files, and how many functions of each were called; relative to the root."""
        names = (str(Path(code.co_filename).relative_to(ROOT)) for code in self.functions)
        return dict(Counter(names).most_common())


def trace(call: Callable[[], object]) -> Trace:
    """Run a call and record which of our functions ran, in all of its threads."""
    found, depth = Trace(), threading.local()

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if code.co_name == "<module>" or not code.co_filename.startswith(PACKAGES):
            return
        depth.now = getattr(depth, "now", 0) + {"call": 1, "return": -1}.get(event, 0)
        if event == "call":
            found.functions[code] += 1
            found.depth = max(found.depth, depth.now)

    threading.setprofile(look)
    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


def four_layer_cnn() -> Any:
    """Build two convolutions and two dense layers for images of 8 x 8 pixels."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Conv2D(128, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ],
        name="cnn",
    )


def prune_channels() -> None:
    """Remove channels without data."""
    import paretune as pt

    pt.prune_channels(four_layer_cnn(), macs=0.5)


def shrink() -> None:
    """Shrink to half of the latency, on digits that train the model for two epochs first."""
    import paretune as pt

    model, data = four_layer_cnn(), pt.load_data("digits", normalize="unit")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(data.inputs("train"), data.train.y, epochs=2, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {"formats": ("float32",), "latency_budget": 1.0}
        pt.shrink(model, data, latency=0.5, no_train=True, out=Path(folder) / "r", **options)


CALLS = {"prune_channels": prune_channels, "shrink": shrink}


def main() -> None:
    """Print the figures of the calls that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("calls", nargs="*", help=", ".join(CALLS))
    parser.add_argument("--list", action="store_true", help="also every file")
    given = parser.parse_args()
    for name in given.calls or CALLS:
        for order in ("first", "second"):
            found = trace(CALLS[name])
            print(
                f"{name}, {order} call: {len(found.files)} files, "
                f"{len(found.functions)} functions, {found.depth} frames deep"
            )
        if given.list:
            for file, count in found.files.items():
                print(f"  {count:4} {file}")


if __name__ == "__main__":
    main()
