"""The 40 networks of keras.applications, pruned to 0.5x and 0.25x of their MACs: nothing breaks.

    python -m benchmarks.applications_channels [--resume FILE]

Runs what the marker `matrix` runs (tests/compress/prune/channels/test_applications.py says what is
checked), each network in a process of its own, and keeps the figures. One that fails is told at the
end, and the result stays unfinished.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks._common import Benchmark, each_network, table
from benchmarks._stored import Stored


def run(given: argparse.Namespace, stored: Stored) -> None:
    """Examines the networks that are missing."""
    from tests.compress.prune.channels.test_applications import constructors, in_own_process

    def laws(items: list[dict[str, Any]]) -> str:
        return ", ".join(f"{item['share']}x law {item['law']:.1e}" for item in items)

    each_network(stored, list(constructors()), in_own_process, laws)


def networks(result: dict[str, Any]) -> str:
    """Two rows a network."""
    rows = []
    for _, items in sorted(result["networks"].items()):
        for item in items:
            (before, after), (params, fewer) = item["macs"], item["params"]
            rows.append([
                item["name"], f"{item['share']:g}x", f"{before:,}",
                f"{after:,} ({after / before:.4f}x)", f"{params:,}", f"{fewer:,}",
                item["groups"], item["frozen"], item["round_to"], f"{item['law']:.1e}",
                "-" if item["litert"] is None else f"{item['litert']:.1e}",
            ])  # fmt: skip
    head = ["network", "target", "MACs before", "after", "parameters before", "after", "groups",
            "held", "kept numbers are multiples of", "law error", "LiteRT error"]  # fmt: skip
    return table(head, rows)


BENCHMARK = Benchmark("applications_channels", __doc__, run, {"networks": networks}, resumable=True)


def main() -> None:
    BENCHMARK.run()


if __name__ == "__main__":
    main()
