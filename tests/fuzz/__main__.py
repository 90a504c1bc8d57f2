"""`python -m tests.fuzz --inputs 2000 --seed 0 --results FILE`: the driver by hand."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.fuzz.drive import Tried, fuzz, table
from tests.fuzz.families import FAMILIES
from tests.fuzz.watch import REFUSED


def main() -> int:
    """Tries the inputs; the exit code tells whether all were good."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", action="append", choices=sorted(FAMILIES), default=[])
    parser.add_argument("--first", type=int, default=0, help="index of the first input")
    parser.add_argument("--results", type=Path, help="JSON: counts by family, and what failed")
    given = parser.parse_args()

    def show(tried: Tried) -> None:
        if not tried.good:
            print(f"{tried.family} {tried.index}: {tried.outcome.kind}: {tried.outcome.detail}\n"
                  f"    {' '.join(tried.words)!r:.300}", flush=True)  # fmt: skip

    found = fuzz(
        given.inputs, given.seed, families=tuple(given.family), first=given.first, on_each=show
    )
    bad = [item for item in found if not item.good]
    counts = table(found)
    for family, kinds in counts.items():
        print(f"{family:12}", ", ".join(f"{count} {kind}" for kind, count in kinds.items()))
    print(f"{len(found)} inputs, {len(bad)} bad")
    if given.results:
        record = {
            "command": " ".join(["python -m tests.fuzz", *sys.argv[1:]]), "inputs": len(found),
            "seed": given.seed, "families": counts,
            "reasons": sorted({item.outcome.detail for item in found
                               if item.outcome.kind == REFUSED}),
            "bad": [
                {"family": item.family, "index": item.index, "words": item.words,
                 "kind": item.outcome.kind, "detail": item.outcome.detail} for item in bad
            ],
        }  # fmt: skip
        given.results.write_text(json.dumps(record, indent=2) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
