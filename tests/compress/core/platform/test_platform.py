"""Linux's ways and the portable ones do the same, each forced in turn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from compress.core.device import lacks_vnni
from compress.core.errors import InputError
from compress.core.platform import CHOICE, NAMES, Host, host, linux
from compress.core.processes import ProcessEnded, ProcessOverdue, Server
from compress.exporting import conversions
from compress.exporting.conversions import ConversionFailed, convert
from compress.run.directory import RunFolder
from tests.compress.core.test_processes import SCRIPT, gone, wait_for_end
from tests.patience import PATIENCE, wait_for

ROOT = Path(__file__).parents[4]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="holds both against each other")


@pytest.fixture(params=NAMES)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Forces a way, for this process and those that it starts."""
    monkeypatch.setenv(CHOICE, request.param)
    return str(request.param)


def both(monkeypatch: pytest.MonkeyPatch) -> list[Host]:
    found = []
    for name in NAMES:
        monkeypatch.setenv(CHOICE, name)
        found.append(host())
    assert found[0] is not found[1]
    return found


def script(text: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, words)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


HOLDER = """
import sys, time
from pathlib import Path
from compress.core.platform import host
path = Path(sys.argv[2])
held = host().share(path) if sys.argv[1] == "share" else host().lock(path, wait=True)
print("held", flush=True)
time.sleep(3600)
"""


@contextmanager
def holder(how: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a file with `lock` or `share`."""
    with script(HOLDER, how, path) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_what_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHOICE, "bsd")
    with pytest.raises(InputError, match=r"PARETUNE_PLATFORM must be one of linux, portable"):
        host()
    monkeypatch.setenv(CHOICE, "linux")
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(InputError, match=r"must be one of portable here. Received: linux"):
        host()
    monkeypatch.delenv(CHOICE)
    assert not host().FORKS


def test_a_run_folder_has_one_holder_even_after_a_kill(way: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with holder("lock", tmp_path / "run.lock") as other:
        with pytest.raises(InputError, match="in use by another paretune process"):
            folder.locked().__enter__()
        other.kill()
        other.wait()
        with folder.locked(), pytest.raises(InputError, match="in use"):
            RunFolder(tmp_path).locked().__enter__()
    with folder.locked():
        pass


def test_a_lock_is_waited_for(way: str, tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with holder("lock", path) as other:
        got: list[object] = []
        waiting = threading.Thread(target=lambda: got.append(host().lock(path, wait=True)))
        waiting.start()
        waiting.join(0.3)
        assert got == []
        other.kill()
        waiting.join(PATIENCE)
    (lock,) = got
    assert host().lock(path, wait=False) is None
    lock.release()  # type: ignore[attr-defined]
    again = host().lock(path, wait=False)
    assert again is not None
    again.release()
    again.release()


def test_a_file_is_shared_until_the_last_holder_ends(way: str, tmp_path: Path) -> None:
    path = tmp_path / "workers.lock"
    assert not host().is_shared(path)
    with ExitStack() as stack:
        first, second = (stack.enter_context(holder("share", path)) for _ in range(2))
        assert host().is_shared(path)
        first.kill()
        first.wait()
        assert host().is_shared(path)
        second.kill()
        second.wait()
        assert not host().is_shared(path)
    held = host().share(path)
    assert host().is_shared(path)
    held.release()
    assert not host().is_shared(path)


def test_a_pipe_is_read_within_a_time(way: str) -> None:
    back, to = os.pipe()
    os.write(to, b"abc")
    assert host().read(back, 2, 5.0) == b"ab"
    assert host().read(back, 2, None) == b"c"
    os.close(to)
    assert host().read(back, 2, 5.0) == b""
    os.close(back)
    with pytest.raises(OSError, match="Bad file descriptor"):
        host().read(back, 2, 5.0)
    back, to = os.pipe()
    before = set(threading.enumerate())
    with pytest.raises(TimeoutError):
        host().read(back, 2, 0.05)
    os.close(to)  # a thread that still reads ends now
    wait_for(lambda: before >= set(threading.enumerate()))
    os.close(back)


FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
print(child.pid, flush=True)
time.sleep(3600)
"""


def test_what_a_process_has_started_is_killed_with_it(way: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, **host().group_options()
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert os.getsid(parent.pid) == parent.pid  # Ctrl-C goes to this process's session alone
    host().kill_group(parent.pid)
    assert parent.wait() == -signal.SIGKILL
    wait_for_end(child)
    host().kill_group(parent.pid)  # nothing is left
    parent.stdout.close()


def test_servers_answer_fail_and_hang_alike(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "answering.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    server = Server.started("answering")
    big = bytes(range(256)) * 2**14  # more than a pipe holds
    assert server.ask("say", big, seconds=PATIENCE) == (server.pid, "say", big)
    with pytest.raises(ProcessEnded, match=r"segmentation fault \(signal 11\); .*out of cheese"):
        server.ask("die", signal.SIGSEGV, seconds=PATIENCE)
    server = Server.started("answering")
    with pytest.raises(ProcessOverdue, match=r"within 0.2 s"):
        server.ask("wait", 1000, seconds=0.2)
    assert gone(server.pid)


PARENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from compress.core.processes import Server
server = Server.started("answering")
server.ask("say", 0)
print(server.pid, flush=True)
time.sleep(3600)
"""


def test_a_server_ends_with_who_started_it(way: str, tmp_path: Path) -> None:
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


def test_a_conversion_returns_raises_and_crashes_alike(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a fork of the process that converts, or in that process itself."""
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "tensorflow.py").write_text("")  # which the process imports, and these do not need
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(conversions, "_CONVERTER", conversions._Converter())
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
        conversions._CONVERTER.close()


def test_memory_and_cores_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil reads the same counters; only Linux's way knows a container's bound."""
    ours, theirs = both(monkeypatch)
    theirs.resident_bytes()  # imports psutil
    assert theirs.resident_bytes() == pytest.approx(ours.resident_bytes(), rel=0.1)
    first, second = ours.available_bytes(), theirs.available_bytes()
    assert first is not None
    assert second is not None
    assert second > 0.8 * first
    assert theirs.cores() == ours.cores() >= 1
    one = min(os.sched_getaffinity(0))
    bound = "import os; os.sched_setaffinity(0, {%d})\n" % one  # noqa: UP031
    ask = bound + "from compress.core.platform import host; print(host().cores())"
    with script(ask) as process:  # the portable way is still forced
        assert process.communicate()[0] == "1\n"


def test_the_load_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = both(monkeypatch)
    own = os.getpid()
    counted = [(*way.core_seconds(), way.process_seconds(own)) for way in (ours, theirs, ours)]
    tick = 0.05  # and what rounding makes of it
    for first, second, third in zip(*counted, strict=True):
        assert 0.0 < first - tick <= second <= third + tick
    assert theirs.process_seconds(2**22 + 1) == ours.process_seconds(2**22 + 1) == 0.0


@pytest.mark.parametrize("name", [name for name in vars(Host) if not name.startswith("_")])
def test_both_offer_everything(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(callable(getattr(way, name)) for way in both(monkeypatch))


def test_both_know_whose_a_file_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = os.getuid()
    for way in both(monkeypatch):
        assert way.is_own(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(os, "getuid", lambda: own + 1)
            assert not way.is_own(tmp_path)


def test_both_know_what_lies_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    in_memory = [Path(place) for place, kind in mounts if kind == "tmpfs"]
    for way in both(monkeypatch):
        for place in in_memory:
            assert way.in_memory(place)
        assert not way.in_memory(Path("/proc"))


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
    assert linux.cpu_name() == told
    (tmp_path / "cpuinfo").write_text("Processor: ARMv8\n")
    assert linux.cpu_name() == ""


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
    monkeypatch.setenv(CHOICE, "linux")
    assert lacks_vnni() == lacks
    monkeypatch.setenv(CHOICE, "portable")
    assert not lacks_vnni()
