"""Run the benchmarks, one after the other, each with its peers where these are installed.

    python -m benchmarks [--list] [NAME ...]

`TABLE` says what each proves and how long it takes. Each writes a new file into benchmarks/results.
One that fails is reported at the end; the others run. Its options are those of a full run of half a
day; a result that documents cite may hold more models and seeds (its file has the command).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks._stored import ROOT


@dataclass(frozen=True)
class Entry:
    """One benchmark.

    Attributes:
        name: Its module.
        minutes: About how long it takes on two quiet cores.
        proves: The claim that its figures carry.
        words: Its options in a full run, space separated.
    """

    name: str
    minutes: float
    proves: str
    words: str = ""

    @property
    def command(self) -> tuple[str, ...]:
        """The arguments of the interpreter."""
        return ("-m", f"benchmarks.{self.name}", *self.words.split())


TABLE = (
    Entry("trial_speed", 20, "a trial takes less time than with Keras's fit", "--rounds 5"),
    Entry("step_speed", 15, "what pruning and QAT add to a training step, beside tfmot"),
    Entry("latency_table", 24, "times of single calls add up to the time of a whole file"),
    Entry("repair_resnet20", 25, "reconstruction without training, beside torch-pruning and GRAIL"),
    Entry("repair_models", 42, "reconstruction on six families of models",
          "--nets mobilenet,lstm"),
    Entry("repair_vit", 5, "reconstruction of a vision transformer, beside CORP"),
    Entry("repair_weights", 20, "reconstruction of models with 80 to 95 % zeros"),
    Entry("repair_int8", 30, "reconstructed models keep their accuracy in int8",
          "--nets small,random1,random2,mobilenet"),
    Entry("real_size", 8, "time and memory of selection and reconstruction up to 224 pixels",
          "--models resnet20,mobilenetv2"),
    Entry("channel_methods", 40, "the default choice of channel counts is the best one known",
          "--nets resnet20,lstm"),
    Entry("shrink_goals", 70, "one call reaches its goal", "--nets resnet20,mobilenet"),
    Entry("shrink_peers", 90, "shrink beside other ways to the same latency", "--seeds 0"),
    Entry("any_model", 40, "other inputs, outputs and losses than images and classes",
          "--nets unet,detector --seeds 0"),
    Entry("quantize_nets", 50, "quantization-aware training beside post-training quantization",
          "--nets separable,resnet20,vit --seeds 0"),
    Entry("token_files", 20, "files of transformers that take tokens agree with their models"),
    Entry("memory_budget", 40, "commands keep within --memory at 224 pixels",
          "--models mobilenetv2,vit --macs"),
    Entry("time_left", 5, "the time left that commands show is right within a factor of two"),
    Entry("verdicts", 12, "a verdict of a goal holds on new data"),
    Entry("search_front", 37, "a better front for the same minutes than Optuna and Keras's fit"),
    Entry("search_nas_table", 15, "samplers where the whole front is known",
          "--table nas-bench-macro_cifar10.json"),
    Entry("cluster_overhead", 30, "what a study costs with many workers", "--trials 1000"),
    Entry("run_front", 17, "a run with a budget ends with better files than other ways",
          "--ways budget,hand,search --seeds 0"),
    Entry("whole_run", 50, "what a search with compression ends with"),
)  # fmt: skip
"""All of them, in the order of a full run; a module with a `main` that is missing fails a test."""


def run(command: Sequence[str]) -> int:
    """Run one benchmark and return its exit code."""
    return subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode


def main(words: Sequence[str] | None = None, run: Callable[[Sequence[str]], int] = run) -> int:
    """Run the chosen benchmarks.

    Args:
        words: The command line.
        run: Runs one command and returns its exit code.

    Returns:
        0, or 1 where a benchmark failed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="modules; default: all")
    parser.add_argument("--list", action="store_true", help="only show what would run")
    given = parser.parse_args(words)
    known = {entry.name for entry in TABLE}
    if unknown := sorted(set(given.names) - known):
        parser.error(f"NAME must be one of {', '.join(sorted(known))}. Received: {unknown[0]}.")
    chosen = [entry for entry in TABLE if not given.names or entry.name in given.names]
    if given.list:
        for entry in chosen:
            print(f"{entry.proves}\n    python {' '.join(entry.command)}  # {entry.minutes:g} min")
        print(f"# about {sum(entry.minutes for entry in chosen) / 60:.1f} h in all")
        return 0
    failed: list[Entry] = []
    for place, entry in enumerate(chosen, 1):
        print(f"\n[{place}/{len(chosen)}] python {' '.join(entry.command)}", flush=True)
        if run(entry.command):
            failed.append(entry)
    for entry in failed:
        print(f"failed: python {' '.join(entry.command)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
