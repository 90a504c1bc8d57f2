"""Runs all benchmarks, one after the other, each with its peers where these are installed.

    python -m benchmarks [--list] [NAME ...]

Each writes a new file into benchmarks/results. One that fails is told at the end; the others run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence

from benchmarks._stored import ROOT
from benchmarks._table import TABLE, Entry


def run(command: Sequence[str]) -> int:
    """Runs one benchmark; returns its exit code."""
    return subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode


def main(words: Sequence[str] | None = None, run: Callable[[Sequence[str]], int] = run) -> int:
    """Runs what is asked for.

    Args:
        words: The command line.
        run: Runs one command and returns its exit code.

    Returns:
        0, or 1 where a benchmark failed.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of modules; default: all")
    parser.add_argument("--list", action="store_true", help="only tell what would run")
    given = parser.parse_args(words)
    known = {entry.name for entry in TABLE}
    if unknown := sorted(set(given.names) - known):
        parser.error(f"NAME must be one of {', '.join(sorted(known))}. Received: {unknown[0]}.")
    chosen = [entry for entry in TABLE if not given.names or entry.name in given.names]
    if given.list:
        for entry in chosen:
            print(f"python {' '.join(entry.command)}  # about {entry.minutes:g} min")
        print(f"# about {sum(entry.minutes for entry in chosen) / 60:.1f} h in all")
        return 0
    failed: list[Entry] = []
    for place, entry in enumerate(chosen, 1):
        print(f"\n[{place}/{len(chosen)}] python {' '.join(entry.command)}", flush=True)
        if run(entry.command):
            failed.append(entry)
    for entry in failed:
        print(f"failed: python {' '.join(entry.command)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
