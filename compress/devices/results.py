"""Reads what benchmark_model, or measure.py, wrote about files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.core.atomic_files import read_json
from compress.core.errors import InputError, one_line
from compress.devices.manifest import RESULTS
from compress.measure.stats import QUIET, quantile_and_error

_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
_AVERAGE = re.compile(rf"Inference \(avg\): {_NUMBER}")
_MEDIAN = re.compile(rf"^.*\bcount=\d+ .*\bmedian={_NUMBER}", re.M)
_THREADS = re.compile(r"(?:[Nn]um threads|#threads used for CPU inference): \[(\d+)\]")
_BETWEEN = "~"
"""Stands for "/" in the names of logs."""


@dataclass
class Results:
    """Times of files.

    Attributes:
        tool: What measured.
        threads: CPU threads that it told of; empty: it did not tell.
        milliseconds: Of each file, one number a round.
        refused: Of files that could not be run the reason.
    """

    tool: str = ""
    threads: set[int] = field(default_factory=set)
    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def time(self, file: str) -> tuple[float, float]:
        """Returns a file's time in ms, that of its quiet rounds, and the standard error."""
        return quantile_and_error(self.milliseconds[file], QUIET)


def read_results(folder: Path) -> Results:
    """Reads results/ of a folder that `export_latency_table` wrote.

    Raises:
        InputError: There are none, of both tools, or a file holds something else.
    """
    place = folder / RESULTS
    logs, own = sorted(place.glob("*.tflite.*.txt")), place / "python.json"
    if bool(logs) == own.exists():
        found = "logs of benchmark_model and python.json" if logs else "none"
        raise InputError(
            f"'{place}' must hold what measure.sh or measure.py wrote, one of them. Received: "
            f"{found}. Run one on the device, and copy results/ back."
        )
    return _of_logs(logs) if logs else _of_json(own)


def _of_logs(logs: list[Path]) -> Results:
    found = Results("LiteRT's benchmark_model")
    for path in logs:
        name = path.name.rpartition(".tflite")[0].replace(_BETWEEN, "/") + ".tflite"
        text = path.read_text(encoding="utf-8", errors="replace")
        average, medians = _AVERAGE.findall(text), _MEDIAN.findall(text)
        if not average:
            lines = [line for line in text.splitlines() if line.strip()]
            found.refused[name] = one_line(lines[-1].strip() if lines else "it said nothing")
            continue
        # the first line with counts is that of the warm-up
        microseconds = float(medians[-1] if len(medians) > 1 else average[-1])
        found.milliseconds.setdefault(name, []).append(microseconds / 1000)
        found.threads |= set(map(int, _THREADS.findall(text)))
    return found


def _of_json(path: Path) -> Results:
    try:
        content: Any = read_json(path)
        return Results(
            str(content["tool"]),
            {int(content["threads"])},
            {
                str(name): [float(value) / 1000 for value in values]
                for name, values in content["microseconds"].items()
            },
            {str(name): one_line(str(why)) for name, why in content["refused"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"'{path}' must be what measure.py wrote. Received: {type(error).__name__}: {error}."
        ) from None
