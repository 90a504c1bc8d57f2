"""Other processes' load, on a /proc of our own: two cores, 100 ticks a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.core import linux
from compress.measure.latency import LoadMeter


class Machine:
    """Writes what the kernel would, and tells our own process's CPU time."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.own = 5.0
        # user, nice, system, idle, iowait, irq, softirq, steal since boot (see proc_stat(5));
        # guest time, behind them, is in user already
        self.ticks = [4000, 10, 500, 90000, 300, 7, 3, 20]
        self.children: dict[int, list[int]] = {}
        self.write()

    def write(self) -> None:
        cores = " ".join(map(str, [*self.ticks, 999, 999]))
        (self.proc / "stat").write_text(f"cpu  {cores}\ncpu0 1 1 1 1 1 1 1 1 0 0\nintr 5\n")
        for number, (user, system) in self.children.items():
            (self.proc / str(number)).mkdir(exist_ok=True)
            # a name may hold spaces and brackets; utime and stime are fields 14 and 15
            before = " ".join(["S", *["0"] * 10])
            (self.proc / str(number) / "stat").write_text(
                f"{number} (a (b) c) {before} {user} {system} 0 0 20\n"
            )

    def passes(self, seconds: float, busy: float, own: float = 0.0) -> None:
        """Both cores together are busy for `busy` seconds, our process for `own` of them."""
        used = round(100 * busy)
        self.ticks[0] += used - used // 4
        self.ticks[2] += used // 4
        rest = round(2 * 100 * seconds) - used
        self.ticks[3] += rest - rest // 10
        self.ticks[4] += rest // 10  # waiting for a disk is not work
        self.own += own
        self.write()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(linux, "_PROC", tmp_path)
    monkeypatch.setattr("time.process_time", lambda: made.own)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    return made


def test_an_idle_machine(machine: Machine) -> None:
    meter = LoadMeter()
    machine.passes(10.0, busy=0.0)
    assert meter.measure_busy_cores() == 0.0


def test_our_own_work_is_not_others(machine: Machine) -> None:
    meter = LoadMeter()
    machine.passes(10.0, busy=10.0, own=10.0)
    assert meter.measure_busy_cores() == pytest.approx(0.0)


@pytest.mark.parametrize(("busy", "cores"), [(1.0, 0.1), (10.0, 1.0), (20.0, 2.0)])
def test_another_process_is_seen(machine: Machine, busy: float, cores: float) -> None:
    meter = LoadMeter()
    machine.passes(10.0, busy=busy)
    assert meter.measure_busy_cores() == pytest.approx(cores)


def test_beside_our_own_work(machine: Machine) -> None:
    meter = LoadMeter()
    machine.passes(4.0, busy=7.0, own=4.0)  # 3 of 4 seconds are others'
    assert meter.measure_busy_cores() == pytest.approx(0.75)
    # since the meter was made: 3 + 0 of 4 + 2 seconds
    machine.passes(2.0, busy=2.0, own=2.0)
    assert meter.measure_busy_cores() == pytest.approx(0.5)


def test_processes_that_work_for_us_are_not_others(machine: Machine) -> None:
    machine.children = {41: [1000, 200], 42: [0, 0]}
    machine.write()
    meter = LoadMeter(lambda: [41, 42])
    machine.children = {41: [1150, 250], 42: [100, 0]}  # 2 seconds and 1
    machine.passes(10.0, busy=8.0, own=1.0)
    assert meter.measure_busy_cores() == pytest.approx(0.4)


def test_a_process_that_is_gone_counts_nothing(machine: Machine) -> None:
    meter = LoadMeter(lambda: [43])
    machine.passes(10.0, busy=5.0)
    assert meter.measure_busy_cores() == pytest.approx(0.5)


def test_less_than_nothing_is_nothing(machine: Machine) -> None:
    meter = LoadMeter()
    machine.passes(10.0, busy=1.0, own=1.02)  # ticks are coarser than our own clock
    assert meter.measure_busy_cores() == 0.0


def test_unknown_before_a_tick_has_passed(machine: Machine) -> None:
    assert LoadMeter().measure_busy_cores() is None


def test_unknown_where_there_is_no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "_PROC", tmp_path / "none")
    assert LoadMeter().measure_busy_cores() is None


def test_the_kernels_own_files_are_read() -> None:
    """Whatever the load is: busy and total ticks of all cores, our own CPU time."""
    busy, total = linux.read_core_seconds()
    assert 0 < busy <= total
    assert linux.read_process_seconds(1) >= 0.0
