"""What `benchmarks.verdicts` draws: against answers that are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.verdicts import (
    ORIGINAL,
    draw_power,
    draw_single,
    draw_ties,
    draw_verdicts,
    pack,
    replay_run,
    unpack,
)

ORIGINAL_BITS = np.arange(10_000) % 10 != 0


def lose(share: float) -> Any:
    """Return predictions that are wrong on a share of all images more, evenly spread."""
    wrong = np.random.default_rng(0).permutation(np.flatnonzero(ORIGINAL_BITS))
    found = ORIGINAL_BITS.copy()
    found[wrong[: round(share * 10_000)]] = False
    return found


def test_predictions_are_stored_bit_by_bit() -> None:
    bits = np.random.default_rng(1).random(1001) < 0.3
    assert (unpack(pack(bits), 1001) == bits).all()


def test_a_clear_case_is_always_said_right() -> None:
    versions = {ORIGINAL: ORIGINAL_BITS, "same": ORIGINAL_BITS.copy(), "far": lose(0.2)}
    found = draw_verdicts(versions, 0.02, 50, 0)
    assert (found["met"], found["false"]) == (50, 0)
    assert draw_single(ORIGINAL_BITS, lose(0.2), 0.1, 50, 0) == {
        "met": 0, "false": 0, "missed": 50,
    }  # fmt: skip
    assert draw_power(ORIGINAL_BITS, lose(0.02), 50, 0) == 1.0


def test_a_true_drop_at_the_limit_is_seldom_called_met() -> None:
    found = draw_single(ORIGINAL_BITS, lose(0.01), 0.01, 400, 0)
    assert found["met"] <= 0.05 * 400
    assert found["false"] <= found["met"]


def test_equal_models_are_seldom_called_different() -> None:
    versions = {ORIGINAL: ORIGINAL_BITS, "a": lose(0.05), "b": lose(0.1)}
    found = draw_ties(versions, 100, 0)
    assert len(found) == 4
    assert all(row["false"] <= 0.12 for row in found.values())
    # before, estimates decided, and one standard error
    assert found["choice and verdict, 2,000 examples"]["false before"] > 0.5


def test_a_stored_run_is_chosen_anew() -> None:
    def file(name: str, val: float, ratio: float) -> dict[str, Any]:
        return {"id": name, "val": val, "test": val, "ratio": ratio, "bytes": 100, "macs": 10,
                "format": name.partition(".")[2]}  # fmt: skip

    dense = {"val": 0.94, "test": 0.94, "macs": 10, "format": "float32"}
    run = {
        "outcome": {"goal": "latency 0.5x, validation accuracy at least 0.9300",
                    "chosen": "m-small.float32"},
        "dense": dense,
        "files": [file("m.float32", 0.94, 1.0), file("m-small.float32", 0.9355, 2.0),
                  file("m-small.int8", 0.9352, 5.0), file("m-tiny.int8", 0.92, 9.0)],
    }  # fmt: skip
    found = replay_run(run)
    assert (found["before"], found["now"]) == ("m-small.float32", "m-small.int8")
    assert found["speed"] == [2.0, 5.0]
