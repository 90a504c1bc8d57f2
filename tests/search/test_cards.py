"""Workers on GPUs: which card, shared with how many."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.runfolder import RunFolder
from search.engines import local
from search.engines.cards import card_of, sharers


@pytest.mark.parametrize(
    ("visible", "cards"),
    [(None, ["0", "1", "0", "1", "0"]), ("2, 3", ["2", "3", "2", "3", "2"]),
     ("GPU-8f,GPU-a1", ["GPU-8f", "GPU-a1", "GPU-8f", "GPU-a1", "GPU-8f"])],
)  # fmt: skip
def test_cards_go_round_among_those_the_run_may_use(visible: str | None, cards: list[str]) -> None:
    assert [card_of(worker, 2, visible) for worker in range(5)] == cards


def test_sharers_are_counted_by_card() -> None:
    # workers 0, 2, 4 on the first card, 1, 3 on the second
    assert [sharers(worker, 5, 2) for worker in range(5)] == [3, 2, 3, 2, 3]
    assert [sharers(worker, 2, 2) for worker in range(2)] == [1, 1]
    assert sharers(0, 1, 4) == 1


def test_the_pool_tells_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Process:
        stdout = ()

        def __init__(self, command: list[str], **options: dict[str, str]) -> None:
            started.append((command, options["env"]["CUDA_VISIBLE_DEVICES"]))

    monkeypatch.setattr(local.subprocess, "Popen", Process)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    pool = local.LocalPool(RunFolder(tmp_path), 3, "gpu", 2, gpus=2)
    for slot in pool._slots:
        pool._start(slot)
    assert [card for _, card in started] == ["4", "6", "4"]
    assert [command[-1] for command, _ in started] == ["2", "1", "2"]
    assert all(command[-2] == "--sharers" for command, _ in started)
