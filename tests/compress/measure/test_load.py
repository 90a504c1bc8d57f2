"""Other processes' load, made on purpose."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress.measure.load import LoadMeter

needs_proc = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux's /proc")


@needs_proc
def test_another_process_is_seen_and_our_own_work_is_not() -> None:
    def spin(seconds: float) -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    meter = LoadMeter()
    spin(1.0)
    alone = meter.others()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as burner:
        time.sleep(0.2)
        meter = LoadMeter()
        spin(1.0)
        beside = meter.others()
        burner.kill()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        time.sleep(0.2)
        meter = LoadMeter(lambda: [child.pid])
        spin(1.0)
        working_for_us = meter.others()
        child.kill()
    assert alone is not None
    assert working_for_us is not None
    assert working_for_us < alone + 0.3
    assert beside is not None
    assert beside > alone + 0.3


def test_unknown_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.measure.load._STAT", Path("/no/such/file"))
    assert LoadMeter().others() is None
