"""One budget: what is free of it, how many examples fit, what is refused and with which amount."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compress.core import linux, memory_budget
from compress.core.errors import InputError
from compress.core.memory_budget import MemoryBudget, get_current_budget, require_memory, use_budget

GB = 10**9


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine whose figures a test sets: bytes that are available, bytes of our processes."""

    class Machine:
        available: int | None = 8 * GB
        occupied = 1 * GB

        def measure_available_bytes(self) -> int | None:
            return self.available

        def measure_tree_bytes(self) -> int:
            return self.occupied

        def trim_memory(self) -> None:
            pass

    made = Machine()
    monkeypatch.setattr(memory_budget, "linux", made)
    monkeypatch.setattr(memory_budget, "measure_free_gpu_bytes", lambda: None)
    monkeypatch.setattr(memory_budget, "_current", None)
    return made


def test_free_is_the_budget_less_what_is_occupied(machine: Any) -> None:
    assert (
        MemoryBudget(4 * GB, is_user_set=True).measure_free_bytes() == 2_600_000_000
    )  # 90 % of it, less 1 GB
    machine.available = 2 * GB  # other programs take memory, too
    assert MemoryBudget(4 * GB, is_user_set=True).measure_free_bytes() == 1_800_000_000
    machine.occupied = 5 * GB
    assert MemoryBudget(4 * GB, is_user_set=True).measure_free_bytes() == 0


def test_without_an_amount_the_machine_counts(machine: Any) -> None:
    budget = get_current_budget()
    assert not budget.is_user_set
    assert budget.bytes == 8_100_000_000  # 90 % of the 9 GB that ours have and may have
    assert budget.measure_free_bytes() == 7_200_000_000
    machine.available = None
    assert MemoryBudget.from_machine().measure_free_bytes() > 10**30


def test_batches_follow_from_what_is_free(machine: Any) -> None:
    budget = MemoryBudget(4 * GB, is_user_set=True)  # 2.6 GB are free; half is planned with
    assert budget.find_batch_size(10**6, max_examples=1024, purpose="work") == 1024
    assert (
        budget.find_batch_size(10**7, max_examples=1024, purpose="work") == 128
    )  # 130, as a power of two
    assert budget.find_batch_size(10**7, max_examples=100, purpose="work") == 100
    assert (
        budget.find_batch_size(10**7, max_examples=1024, purpose="work", fixed_bytes=GB) == 16
    )  # 30
    assert (
        budget.find_batch_size(2 * GB, max_examples=1024, purpose="work") == 1
    )  # more than half, but it fits
    assert (
        budget.find_batch_size(600_000_000, max_examples=1024, purpose="work", min_examples=4) == 4
    )


def test_shares_of_what_is_free(machine: Any) -> None:
    budget = MemoryBudget(4 * GB, is_user_set=True)
    assert budget.compute_share(0.5, 10**9) == 10**9
    assert budget.compute_share(0.25, 10**9) == 2**29  # 650 MB, as a power of two
    assert budget.can_hold(260_000_000, 0.1)
    assert not budget.can_hold(260_000_001, 0.1)


def test_small_work_asks_nobody(machine: Any) -> None:
    machine.available, machine.occupied = 0, 4 * GB
    budget = MemoryBudget(4 * GB, is_user_set=True)
    assert budget.find_batch_size(60_000, max_examples=1024, purpose="work") == 1024
    assert (
        budget.find_batch_size(10**7, max_examples=1024, purpose="work") == 1
    )  # not refused hours later


def test_what_does_not_fit_is_refused_with_what_would_do(machine: Any) -> None:
    budget = MemoryBudget(4 * GB, is_user_set=True)
    with pytest.raises(
        InputError,
        match=r"memory must be at least 6\.7 GB for one image\. Received: 4\.0 GB, of which "
        r"2\.6 GB are free\. Give --memory 6\.7GB\.",
    ):
        budget.find_batch_size(5 * GB, max_examples=8, purpose="one image")
    budget.require(2_600_000_000, "it")
    with pytest.raises(InputError, match=r"at least 4\.1 GB for it"):
        budget.require(2_600_000_001, "it")
    with pytest.raises(InputError, match="Use a machine with more memory"):
        budget.require(20 * GB, "it")  # more than the machine has: naming an amount would not help


def test_the_amount_that_is_named_suffices(machine: Any) -> None:
    with pytest.raises(InputError, match=r"Give --memory 3\.9GB"):
        MemoryBudget(2 * GB, is_user_set=True).find_batch_size(
            2_450_000_000, max_examples=8, purpose="work"
        )
    assert (
        MemoryBudget(3_900_000_000, is_user_set=True).find_batch_size(
            2_450_000_000, max_examples=8, purpose="w"
        )
        == 1
    )


def test_a_card_counts_in_place_of_memory(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "measure_free_gpu_bytes", lambda: 2 * GB)
    assert MemoryBudget(64 * GB).find_batch_size(10**8, max_examples=1024, purpose="work") == 8
    with pytest.raises(InputError, match=r"The GPU's memory must hold 3\.0 GB for work"):
        MemoryBudget(64 * GB).find_batch_size(3 * GB, max_examples=1024, purpose="work")


def test_use_holds_for_a_while_and_inside(machine: Any) -> None:
    before = get_current_budget()
    with use_budget(3 * GB) as outer:
        assert (outer.bytes, outer.is_user_set) == (3 * GB, True)
        with use_budget(None) as inner:  # whoever names nothing keeps to what holds
            assert inner is outer
        with use_budget(2 * GB):
            assert get_current_budget().bytes == 2 * GB
        assert get_current_budget() is outer
    assert get_current_budget() is before


def test_a_budget_below_what_is_occupied_is_refused(machine: Any) -> None:
    with (
        pytest.raises(InputError, match=r"memory must be at least 1\.5 GB: this process occupies"),
        use_budget(900_000_000),
    ):
        raise AssertionError("it was opened")


def test_room_is_that_of_the_budget(machine: Any) -> None:
    with use_budget(2 * GB):
        require_memory(800_000_000, "Images")
        with pytest.raises(InputError, match=r"Images must fit into memory. Received: 0\.9 GB"):
            require_memory(800_000_001, "Images")


@pytest.mark.parametrize(("text", "expected"), [("max", 5_000_000), ("3000000", 2_500_000)])
def test_a_group_of_version_2_bounds(
    text: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "cgroup" / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text(f"{text}\n")
    (inner / "memory.current").write_text("1500000\n")
    (inner / "memory.stat").write_text("anon 400000\ninactive_file 1000000\n")
    (inner.parent / "memory.max").write_text("6000000\n")
    (inner.parent / "memory.current").write_text("1000000\n")
    _proc(tmp_path, "0::/outer/inner\n", monkeypatch)
    root = (tmp_path / "cgroup", "", "memory.max", "memory.current", "inactive_file")
    monkeypatch.setattr(linux, "_CGROUPS", (root,))
    assert linux.measure_available_bytes() == expected


def test_a_group_of_version_1_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "memory" / "job"
    inner.mkdir(parents=True)
    (inner / "limit").write_text("2000000\n")
    (inner / "usage").write_text("500000\n")
    # without a limit of its own version 1 tells a number beyond all memory
    (tmp_path / "memory" / "limit").write_text("9223372036854771712\n")
    (tmp_path / "memory" / "usage").write_text("800000\n")
    _proc(tmp_path, "5:cpu:/other\n4:memory:/job\n", monkeypatch)
    root = (tmp_path / "memory", "memory", "limit", "usage", "total_inactive_file")
    monkeypatch.setattr(linux, "_CGROUPS", (root,))
    assert linux.measure_available_bytes() == 1_500_000


def _proc(place: Path, groups: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proc = place / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemAvailable: 90000000 kB\n")
    (proc / "self" / "cgroup").write_text(groups)
    monkeypatch.setattr(linux, "_PROC", proc)


def test_a_child_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    held = "x = bytearray(b'1') * 200_000_000; print('', flush=True); input()"
    before = linux.measure_tree_bytes()
    with subprocess.Popen(
        [sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        during = linux.measure_tree_bytes()
        child.communicate(b"\n")
    assert during - before > 190_000_000
    assert linux.measure_tree_bytes() < during - 150_000_000


def test_small_arrays_are_read_whatever_an_amount_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linux, "measure_tree_bytes", lambda: 10**12)  # all of it is taken
    monkeypatch.setattr(memory_budget, "_current", MemoryBudget(2 * 10**9, is_user_set=True))
    require_memory(10**6, "Arrays of 'a.npz'")
    with pytest.raises(InputError, match="Arrays of 'a.npz' must fit into memory"):
        require_memory(10**9, "Arrays of 'a.npz'")
