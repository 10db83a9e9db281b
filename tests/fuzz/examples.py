"""Examples of harmed inputs, tried one after the other in a process of their own.

Those that found something are kept in `runs/fuzz/NAME-SEED`; `SMGEO_FUZZ=NAME-SEED` tries one alone.
"""

from __future__ import annotations

import json
import os
import random
import resource
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.fuzz.inputs import KINDS

ROOT = Path(__file__).parents[2]
EXAMPLES = 25  # of each kind; `make soak` tries as many in each round
LONGEST_S = 60
MEMORY = 12 * 2**30  # of address space


class Reader:
    """The process that reads, started again when a file has ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, kind: str, folder: Path) -> dict[str, object]:
        """Return the answer, with the outcome "ended" or "hangs" if there is none."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.fuzz.inputs"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
            )
        process = self._process
        process.stdin.write(f"{kind}\t{folder}\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], LONGEST_S)[0]:
            self.stop()
            return {"outcome": "hangs"}
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self._process = None
            return {"outcome": "ended", "says": f"exit code {code}"}
        return json.loads(line)

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _seeds(name: str) -> Iterable[int]:
    if only := os.environ.get("SMGEO_FUZZ"):
        return [int(only.rpartition("-")[2])] if only.rpartition("-")[0] == name else []
    return range(EXAMPLES * int(os.environ.get("SOAK_ROUNDS", "1")))


def try_examples(
    name: str,
    kind: str,
    reader: Reader,
    place: Path,
    harm: Callable[[Path, random.Random], str],
    judge: Callable[[dict, dict, Path], str | None],
) -> dict[str, str]:
    """Return what is wrong with each harmed copy of an input, by its name and seed; nothing else may appear in `place`.

    Parameters
    ----------
    harm : callable
        Changes the files of a folder, and returns words for what it changed.
    judge : callable
        What is wrong with an answer, given that of the whole input and the folder; None if nothing is.
    """
    whole = place / "whole"
    whole.mkdir()
    KINDS[kind].write(whole)
    expected = reader.ask(kind, whole)
    assert expected["outcome"] == "read", expected
    found = {}
    for seed in _seeds(name):
        folder = place / str(seed)
        shutil.copytree(whole, folder)
        harmed = harm(folder, random.Random(f"{name}-{seed}"))
        before = sorted(place.iterdir())
        wrong = judge(expected, reader.ask(kind, folder), folder)
        if sorted(place.iterdir()) != before:
            wrong = "wrote beside its folder"
        if wrong:
            kept = ROOT / "runs" / "fuzz" / f"{name}-{seed}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept)
            found[f"{name}-{seed}"] = f"{harmed}: {wrong}"
        shutil.rmtree(folder)
    return found
