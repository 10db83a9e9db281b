"""A run that is ended anywhere, in any way, goes on to the files of one that nobody disturbed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

import psutil
import pytest

from tests.kills.endings import ENDINGS, own_disk
from tests.kills.small_study import (
    RECIPE,
    ROOT,
    STAGES,
    WHOLE,
    Process,
    contents,
    differences,
    seconds_of,
    write_recipe,
)
from tests.kills.tally import Tally, chosen_rounds

pytest.importorskip("tensorflow")
pytest.importorskip("ydf")
pytest.importorskip("ismn")

Plan = Sequence[tuple[str, str]]
KEPT = ROOT / "runs" / "kills"


class Trial:
    """Runs of one recipe, and those that are compared with the one that nobody disturbed."""

    def __init__(self, folder: Path, recipe: dict) -> None:
        self._folder, self._recipe = folder, write_recipe(folder, recipe)
        self._temp = folder / "t"
        self._temp.mkdir()
        whole = Process(self._recipe, folder / "whole", self._temp)
        assert whole.wait() == 0, whole.text
        self._whole = whole.out
        self._expected = contents(whole.out)
        self._seconds = seconds_of(whole.out)

    def end_and_go_on(self, name: str, plan: Plan, tally: Tally) -> None:
        """End a run once in each stage of the plan, then let it finish, and compare; what is wrong stands in the tally."""
        random = Random(name)
        with own_disk(self._folder / name) as disk:
            family: list[psutil.Process] = []
            for stage, ending in plan:
                process = Process(self._recipe, disk.path / "run", self._temp)
                if not process.until(stage):  # finished, or an error that the next start meets too
                    break
                process.sleep(random.uniform(0, 0.8 * self._seconds.get(stage, 1.0)))
                reached, begun = process.stage, process.family()
                wrong = ENDINGS[ending](process, disk, random)
                tally.add(reached, ending, name, wrong and f"{wrong}\n{process.text[-1500:]}")
                if left := _wait_for(family):
                    tally.add("all processes end", "compared", name, str(left))
                family = begun
            process = Process(self._recipe, disk.path / "run", self._temp)
            code = process.wait()
            wrong = differences(contents(process.out), self._expected) if code == 0 else [process.text[-2000:]]
            wrong += [f"process: {p}" for p in _wait_for(family)]
            left_over = self._left_over()
            wrong += [f"left over: {p}" for p in left_over]
            for path in left_over:  # it is this round's
                shutil.rmtree(path, ignore_errors=True)
            tally.add("finished", "compared", name, "; ".join(wrong) or None)
            if wrong:  # both, so that what differs can be read
                for kept, run in ((f"{name}-ended", process.out), (f"{name}-whole", self._whole)):
                    shutil.rmtree(KEPT / kept, ignore_errors=True)
                    shutil.copytree(run, KEPT / kept)

    def _left_over(self, seconds: float = 30) -> list[Path]:
        """Return what is in the temporary folder; what is removed after a kill, by another process, is given time."""
        end = time.monotonic() + seconds
        while (found := [p for p in self._temp.iterdir() if not _of_library(p)]) and time.monotonic() < end:
            time.sleep(0.5)
        return found


def _wait_for(family: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that run after 30 s; one that has ended may wait for ever to be noticed by its parent (a zombie)."""
    left = []
    for process in psutil.wait_procs(family, 30)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
    return left


def _of_library(path: Path) -> bool:
    """Return True for the code that TensorFlow writes and removes when Python ends, which a killed process does not reach."""
    return path.name.startswith("__autograph_generated_file")


@pytest.fixture
def folder() -> Iterable[Path]:
    """A folder with a short path: Ray's sockets are below it."""
    path = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def plan_round(number: int) -> Plan:
    """Return an ending for each stage, and two for searches and maps; six rounds try each of them in each stage."""
    endings = list(ENDINGS)
    stages = [stage for stage in STAGES for _ in range(2 if stage.startswith(("search", "map")) else 1)]
    return [(stage, endings[(number + i) % len(endings)]) for i, stage in enumerate(stages)]


def test_ended_runs_go_on_to_the_same_files(folder):
    tally = Tally("runs-short")
    plan = [("stations", "SIGKILL"), ("grid", "second run"), ("model rf", "SIGTERM"), ("map rf", "disk full")]
    Trial(folder, RECIPE).end_and_go_on("short", plan, tally)
    assert not tally.failures, str(tally)


@pytest.mark.soak
def test_runs_that_are_ended_in_any_stage_go_on_to_the_same_files(folder):
    """Each of `SOAK_ROUNDS` rounds ends a run once in every stage; `SMGEO_KILLS=7` tries round 7 alone."""
    tally = Tally("runs")
    trial = Trial(folder, WHOLE)
    for number in chosen_rounds(int(os.environ.get("SOAK_ROUNDS", "2"))):
        trial.end_and_go_on(f"runs-{number}", plan_round(number), tally)
    print(f"\n{tally}")
    assert not tally.failures, str(tally)
