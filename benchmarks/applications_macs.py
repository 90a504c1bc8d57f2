"""Multiply-accumulates of the 40 networks of keras.applications, beside an independent count.

    python -m benchmarks.applications_macs [--resume FILE]

Runs what the marker `matrix` runs (tests/compress/measure/test_onnx_counts.py): each network is
counted from its shapes, and again on its exported ONNX graph, in a process of its own. One that
fails is told at the end, and the result stays unfinished.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks._common import Benchmark, each_network, table
from benchmarks._stored import Stored


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Counts the networks that are missing, the largest last."""
    from tests.compress.measure.test_onnx_counts import PUBLISHED, in_own_process
    from tests.compress.prune.channels.test_applications import constructors

    def counted(name: str) -> dict[str, Any]:
        found: dict[str, Any] = in_own_process(name)
        if name in PUBLISHED:
            millions, source = PUBLISHED[name]
            found["published"] = {"millions": millions, "source": source}
        return found

    names = sorted(constructors(), key=lambda name: (name.startswith("ConvNeXt"), name))
    each_network(stored, names, counted, lambda item: f"{item['macs']:,}")


def networks(result: dict[str, Any]) -> str:
    """A row a network."""
    rows = []
    for name, item in sorted(result["networks"].items()):
        known = item.get("published")
        rows.append([
            name, f"{item['macs']:,}",
            "equal" if item["onnx"] == item["macs"] else f"{item['onnx']:,}",
            f"{known['millions']:,} M ({known['source']})" if known else "",
            f"{item['params']:,}", f"{item['peak_bytes'] / 1e6:.1f} MB",
        ])  # fmt: skip
    head = ["network", "MACs", "ONNX graph", "published", "parameters", "peak activations"]
    return table(head, rows)


BENCHMARK = Benchmark("applications_macs", __doc__, run, {"networks": networks}, resumable=True)


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
