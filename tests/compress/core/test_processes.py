"""Servers in processes of their own: they answer, and end with whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compress.core.processes import (
    ProcessEnded,
    ProcessOverdue,
    ServerProcess,
    describe_exit,
    receive_object,
    send_object,
)
from tests.patience import wait_for

ROOT = Path(__file__).parents[3]

SCRIPT = """
import os, signal, sys, time
from compress.core.processes import receive_object, send_object, start_serving
questions, answers = start_serving()
while True:
    try:
        what, given = receive_object(questions)
    except EOFError:
        break
    print("not an answer")
    if what == "die":
        print("out of cheese", file=sys.stderr, flush=True)
        os.kill(os.getpid(), given)
    if what == "leave":
        sys.exit(given)
    if what == "wait":
        time.sleep(given)
    send_object(answers, (os.getpid(), what, given))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "answering.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    return "answering"


def gone(pid: int) -> bool:
    """Tells whether a process has ended (one that nobody waits for stays as a zombie)."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def wait_for_end(pid: int) -> None:
    wait_for(lambda: gone(pid), "the process's end")


def test_it_answers_in_order_and_large_things_too(module: str) -> None:
    server = ServerProcess.start(module)
    big = bytes(range(256)) * 2**14  # 4 MiB: more than a pipe holds
    assert server.ask("say", big) == (server.pid, "say", big)
    assert server.ask("say", None) == (server.pid, "say", None)
    assert server.is_alive
    server.close()
    assert not server.is_alive


def test_its_end_is_told_with_the_signal_and_its_last_words(module: str) -> None:
    server = ServerProcess.start(module)
    with pytest.raises(ProcessEnded, match=r"segmentation fault \(signal 11\); .*out of cheese"):
        server.ask("die", signal.SIGSEGV)
    with pytest.raises(ProcessEnded, match="exit code 3"):
        ServerProcess.start(module).ask("leave", 3)
    assert describe_exit(-6) == "aborted (signal 6)"


def test_one_that_hangs_is_ended(module: str) -> None:
    server = ServerProcess.start(module)
    with pytest.raises(ProcessOverdue, match=r"within 0.2 s"):
        server.ask("wait", 1000, seconds=0.2)
    assert gone(server.pid)


def test_an_interrupted_question_ends_it(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer would be taken for the next question's."""
    server = ServerProcess.start(module)
    server.ask("say", 0)

    def interrupted(stream: int, seconds: float | None = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("compress.core.processes.receive_object", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.ask("say", 1)
    assert gone(server.pid)


def test_a_fork_keeps_no_file_of_its_parent(tmp_path: Path) -> None:
    def answer(questions: int, answers: int) -> None:
        while True:
            try:
                receive_object(questions)
            except EOFError:
                return
            links = list(Path("/proc/self/fd").iterdir())
            send_object(answers, [str(link.readlink()) for link in links if link.is_symlink()])

    with open(tmp_path / "lock", "w"):
        server = ServerProcess.start_fork(answer)
        names = server.ask("what is open?")
    assert str(tmp_path / "lock") not in names
    server.close()
    assert gone(server.pid)


PARENT = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
from compress.core.processes import ServerProcess, receive_object, send_object

def wait(questions, answers):
    receive_object(questions)
    send_object(answers, "here")
    time.sleep(1000)

def start(kind):
    forked = kind == "forked"
    server = ServerProcess.start_fork(wait) if forked else ServerProcess.start("answering")
    server.ask("say", 0)
    return server.pid

pids = [start(kind) for kind in ("forked", "started")]
# the kernel's parent is a thread: a server of one that ends stays as long as its process
thread = threading.Thread(target=lambda: pids.append(start("started")))
thread.start(); thread.join()
print(*pids, flush=True)
time.sleep(1000)
"""


def test_none_outlives_who_started_it(module: str, tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 3
    assert not any(gone(pid) for pid in pids)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for pid in pids:
        wait_for_end(pid)
