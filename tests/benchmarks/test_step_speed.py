"""Ratios of training steps, and their tables."""

from __future__ import annotations

from benchmarks import step_speed
from benchmarks._common import not_run

PLAIN = [1.0, 2.0] * 5


def test_steps_are_paired_by_round() -> None:
    hold, every = [1.1 * plain for plain in PLAIN], [2.0 * plain for plain in PLAIN]
    row = step_speed.summarize_pruned({"plain": PLAIN, "hold": hold, "every": every})
    assert row["seconds a plain step"] == 1.5
    told = {"paretune": row, "tfmot": not_run("not run: gone")}
    lines = step_speed.pruning(dict.fromkeys(step_speed.LABELS, told)).splitlines()[2:]
    # 99 steps of 1.1 and one of 2.0 are 1.109 each
    cells = "| 1.10x [1.10, 1.10] | 2.00x [2.00, 2.00] | 1.11x [1.11, 1.11] |"
    assert lines[0] == f"| ResNet-20, batch 128 | paretune {cells}"
    assert lines[1].startswith("|  | tfmot | not run: gone |")
    assert len(lines) == 6


def test_quantized_steps_have_a_row_a_side() -> None:
    seconds = {"plain": PLAIN, "moving": [1.2 * plain for plain in PLAIN]}
    told = {"paretune": step_speed.summarize_quantized(seconds), "tfmot": not_run("not run: gone")}
    assert step_speed.quantization({step_speed.QUANTIZED: told}).splitlines()[2:] == [
        "| paretune | 1.20x [1.20, 1.20] |",
        "| tfmot | not run: gone |",
    ]
