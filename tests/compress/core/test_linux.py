"""Locks, processes and figures of Linux, on real files and processes; psutil as the oracle."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from compress.core import linux
from compress.core.device import is_vnni_missing
from compress.core.errors import InputError
from compress.core.processes import ProcessEnded, ProcessOverdue, ServerProcess
from compress.exporting import conversions
from compress.exporting.conversions import ConversionFailed, convert
from compress.run.directory import RunFolder
from tests.compress.core.test_processes import SCRIPT, gone, wait_for_end
from tests.patience import PATIENCE, wait_for

ROOT = Path(__file__).parents[3]


def script(text: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, words)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


HOLDER = """
import sys, time
from pathlib import Path
from compress.core import linux
path = Path(sys.argv[2])
held = linux.lock_file(path, is_shared=sys.argv[1] == "share")
print("held", flush=True)
time.sleep(3600)
"""


@contextmanager
def holder(how: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lock of a file, a shared one by `share`."""
    with script(HOLDER, how, path) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_another_system_is_refused_in_one_line() -> None:
    for name in ("paretune", "compress.core.parent_watch", "search"):
        lines = f"import sys; sys.platform = 'darwin'; import {name}"
        done = subprocess.run(
            [sys.executable, "-c", lines],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            "ImportError: paretune must run on Linux. Received: darwin. Use a Linux container or "
            "virtual machine (on Windows: WSL 2)."
        )


def test_a_run_folder_has_one_holder_even_after_a_kill(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with holder("lock", tmp_path / "run.lock") as other:
        with pytest.raises(InputError, match="in use by another paretune process"):
            folder.hold_lock().__enter__()
        other.kill()
        other.wait()
        with folder.hold_lock(), pytest.raises(InputError, match="in use"):
            RunFolder(tmp_path).hold_lock().__enter__()
    with folder.hold_lock():
        pass


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with holder("lock", path) as other:
        got: list[object] = []
        waiting = threading.Thread(target=lambda: got.append(linux.lock_file(path)))
        waiting.start()
        waiting.join(0.3)
        assert got == []
        other.kill()
        waiting.join(PATIENCE)
    (lock,) = got
    with pytest.raises(BlockingIOError):
        linux.lock_file(path, wait=False)
    lock.close()  # type: ignore[attr-defined]
    linux.lock_file(path, wait=False).close()


def test_a_file_system_without_locks_is_not_taken_for_another_holder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OSError, match="No locks available"):
        linux.is_locked(tmp_path / "lock")


def test_a_file_is_shared_until_the_last_holder_ends(tmp_path: Path) -> None:
    path = tmp_path / "workers.lock"
    assert not linux.is_locked(path)
    with ExitStack() as stack:
        first, second = (stack.enter_context(holder("share", path)) for _ in range(2))
        assert linux.is_locked(path)
        first.kill()
        first.wait()
        assert linux.is_locked(path)
        second.kill()
        second.wait()
        assert not linux.is_locked(path)
    held = linux.lock_file(path, is_shared=True)
    assert linux.is_locked(path)
    held.close()
    assert not linux.is_locked(path)


def test_a_pipe_is_read_within_a_time() -> None:
    back, to = os.pipe()
    os.write(to, b"abc")
    assert linux.read_pipe(back, 2, 5.0) == b"ab"
    assert linux.read_pipe(back, 2, None) == b"c"
    os.close(to)
    assert linux.read_pipe(back, 2, 5.0) == b""
    os.close(back)
    with pytest.raises(OSError, match="Bad file descriptor"):
        linux.read_pipe(back, 2, 5.0)
    back, to = os.pipe()
    before = set(threading.enumerate())
    with pytest.raises(TimeoutError):
        linux.read_pipe(back, 2, 0.05)
    os.close(to)  # a thread that still reads ends now
    wait_for(lambda: before >= set(threading.enumerate()))
    os.close(back)


FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
print(child.pid, flush=True)
time.sleep(3600)
"""


def test_what_a_process_has_started_is_killed_with_it() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert os.getsid(parent.pid) == parent.pid  # Ctrl-C goes to this process's session alone
    linux.kill_process_group(parent.pid)
    assert parent.wait() == -signal.SIGKILL
    wait_for_end(child)
    linux.kill_process_group(parent.pid)  # nothing is left
    parent.stdout.close()


def test_servers_answer_fail_and_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "answering.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    server = ServerProcess.start("answering")
    big = bytes(range(256)) * 2**14  # more than a pipe holds
    assert server.ask("say", big, seconds=PATIENCE) == (server.pid, "say", big)
    with pytest.raises(ProcessEnded, match=r"segmentation fault \(signal 11\); .*out of cheese"):
        server.ask("die", signal.SIGSEGV, seconds=PATIENCE)
    server = ServerProcess.start("answering")
    with pytest.raises(ProcessOverdue, match=r"within 0.2 s"):
        server.ask("wait", 1000, seconds=0.2)
    assert gone(server.pid)


PARENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from compress.core.processes import ServerProcess
server = ServerProcess.start("answering")
server.ask("say", 0)
print(server.pid, flush=True)
time.sleep(3600)
"""


def test_a_server_ends_with_who_started_it(tmp_path: Path) -> None:
    (tmp_path / "answering.py").write_text(SCRIPT)
    with script(PARENT, tmp_path) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
    wait_for_end(child)


STEPS = """
import os, signal
from pathlib import Path

def write(path, text):
    print("a library's words")
    Path(path).write_text(text)

def refuse():
    os.write(2, b"said by C++\\n")
    raise ValueError("too large a kernel")

def crash():
    os.write(2, b"\\nassertion failed\\n")
    os.kill(os.getpid(), signal.SIGABRT)
"""


def test_a_conversion_returns_raises_and_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "tensorflow.py").write_text("")  # which the process imports, and these do not need
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(conversions, "CLIENT", conversions.ConverterClient())
    try:
        convert("steps:write", path=str(tmp_path / "made"), text="whole")
        assert (tmp_path / "made").read_text() == "whole"
        with pytest.raises(ConversionFailed) as caught:
            convert("steps:refuse")
        assert (caught.value.verb, caught.value.reason) == ("refused", "too large a kernel")
        with pytest.raises(ConversionFailed) as caught:
            convert("steps:crash")
        assert caught.value.verb == "crashed on"
        assert caught.value.reason == "aborted (signal 6); its last words: assertion failed"
        convert("steps:write", path=str(tmp_path / "made"), text="again")
        assert (tmp_path / "made").read_text() == "again"
    finally:
        conversions.CLIENT.close()


def test_memory_and_cores_are_those_that_psutil_counts() -> None:
    """Beside a container's bound, which psutil does not know."""
    assert linux.measure_resident_bytes() == pytest.approx(
        psutil.Process().memory_info().rss, rel=0.1
    )
    available = linux.measure_available_bytes()
    assert available is not None
    assert psutil.virtual_memory().available > 0.8 * available
    assert linux.count_cores() == len(psutil.Process().cpu_affinity())
    one = min(os.sched_getaffinity(0))
    bound = "import os; os.sched_setaffinity(0, {%d})\n" % one  # noqa: UP031
    with script(bound + "from compress.core import linux; print(linux.count_cores())") as process:
        assert process.communicate()[0] == "1\n"


def test_the_load_is_what_psutil_counts() -> None:
    def count() -> tuple[float, ...]:
        return *linux.read_core_seconds(), linux.read_process_seconds(os.getpid())

    before = count()
    cores, own = psutil.cpu_times(), psutil.Process().cpu_times()
    after = count()
    busy = cores.user + cores.nice + cores.system + cores.irq + cores.softirq + cores.steal
    counted = (busy, busy + cores.idle + cores.iowait, own.user + own.system)
    tick = 0.05  # and what rounding makes of it
    for first, second, third in zip(before, counted, after, strict=True):
        assert 0.0 < first - tick <= second <= third + tick
    assert linux.read_process_seconds(2**22 + 1) == 0.0


def test_a_file_of_another_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = os.getuid()
    assert linux.is_owned_by_user(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    assert not linux.is_owned_by_user(tmp_path)


def test_what_lies_in_memory() -> None:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in [Path(place) for place, kind in mounts if kind == "tmpfs"]:
        assert linux.is_in_memory(place)
    assert not linux.is_in_memory(Path("/proc"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("AMD EPYC", "AMD EPYC (family 26, model 2)"),
        ("AMD EPYC 7B13 64-Core Processor", "AMD EPYC 7B13 64-Core Processor"),
    ],
)
def test_a_name_that_many_processors_share_gets_their_family(
    name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = f"processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: {name}\nflags\t: a b\n"
    (tmp_path / "cpuinfo").write_text(f"{one}\n{one.replace('26', '25')}\n")
    monkeypatch.setattr(linux, "_PROC", tmp_path)
    assert linux.read_cpu_name() == told
    (tmp_path / "cpuinfo").write_text("Processor: ARMv8\n")
    assert linux.read_cpu_name() == ""


@pytest.mark.parametrize(
    ("cpuinfo", "lacks"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni\n", False),
        ("flags\t\t: fpu avx2 avx_vnni\n", False),
        ("flags\t\t: fpu avx2 avx512f\n", True),
        ("Features\t: fp asimd asimddp\n", False),  # an ARM processor
        (None, False),  # none is known
    ],
)
def test_what_a_processor_lacks(
    cpuinfo: str | None, lacks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{cpuinfo}\nprocessor\t: 1\n")
    monkeypatch.setattr(linux, "_PROC", tmp_path)
    assert is_vnni_missing() == lacks


def test_freed_memory_is_used_again_within_the_context_alone() -> None:
    """A page that comes from the system faults once: 16 thousand pages of 4 KiB are 64 MiB.

    In a process of its own, because the allocator of this one may hold free memory from before.
    """
    script = """
import platform, resource
from compress.core.linux import keep_freed_memory

def count_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"x" * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

outside = [count_faults(), count_faults()]
with keep_freed_memory():
    with keep_freed_memory():
        first = count_faults()
    again = count_faults()
after = count_faults()
if platform.libc_ver()[0] == "glibc" and outside[1] > 16_000:  # small pages
    assert first > 16_000 and again < 1_000 and after > 16_000, (outside, first, again, after)
    print("measured")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if not done.stdout:
        pytest.skip("the allocator is not glibc's, or pages are large")
