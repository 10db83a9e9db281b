"""A run in a job that is ended anywhere, in any way that SLURM or a node may end it, goes on to the files of a laptop's run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import psutil
import pytest

import smgeo
from smgeo.hpc.jobs.script import submit_script
from tests.kills.small_study import (
    ROOT,
    START,
    WHOLE,
    Process,
    contents,
    differences,
    has_begun,
    stage_of,
    write_recipe,
)
from tests.kills.tally import Tally, chosen_rounds

pytest.importorskip("tensorflow")

STAGES = ("world", "stations", "grid", "search ann", "model ann", "map rf", "map ann")
_START_LINE = re.compile(r"job (\d+), start (\d+), ")


class Job:
    """A job that runs the study, with all its starts, and the jobs that are submitted after it."""

    def __init__(self, slurm, folder: Path, recipe: Path, out: Path) -> None:
        self._slurm, self._folder = slurm, folder
        self.out = out
        self._text = smgeo.jobscript("testbed", "run", recipe, out=out, restarts=99)
        self.number, self.starts = 0, 0
        self.submit()

    def submit(self) -> None:
        """Submit the script as a new job."""
        self.number, self.starts = submit_script(self._text), 1

    @property
    def node(self) -> str:
        return self.about()["NodeList"]

    def about(self) -> dict[str, str]:
        return self._slurm.job(self.number)

    def log(self) -> list[str]:
        """Lines of the log since the last start that was awaited."""
        path = self._folder / f"run-small-{self.number}.log"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        begin = [i for i, line in enumerate(lines) if (m := _START_LINE.match(line)) and int(m[2]) >= self.starts]
        return lines[begin[0] :] if begin else []

    @property
    def stage(self) -> str:
        return next((s for line in reversed(self.log()) if (s := stage_of(line))), START)

    def until(self, stage: str) -> bool:
        """Wait until a stage begins; False if the job ended before."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL")

        def reached() -> str | None:
            state = self.about()["JobState"]
            there = has_begun(stage, map(stage_of, self.log()))
            return "reached" if there else state if state in ended else None

        return self._slurm.until(reached, 300, f"job {self.number} in {stage}") == "reached"

    def processes(self) -> list[psutil.Process]:
        """Return the run's process and all that it has started."""
        found = []
        for process in psutil.process_iter():
            try:
                if "smgeo" in (words := process.cmdline()) and str(self.out) in words:
                    found += [process, *process.children(recursive=True)]
            except psutil.Error:
                continue
        return found

    def wait_for_end(self) -> dict[str, str]:
        """Return what SLURM knows of the job when it has ended."""
        return self._slurm.wait(self.number)

    def wait_for_start(self) -> None:
        """Wait until the job has started once more."""
        self.starts += 1
        self._slurm.until(self.log, 120, f"start {self.starts} of job {self.number}")


def kill_program(job: Job) -> str | None:
    """`kill -9` of the program: the job ends with its exit code."""
    for process in job.processes()[:1]:
        process.kill()
    return _submit_again(job, "137:0")


def kill_all(job: Job) -> str | None:
    """`kill -9` of the program and of the script that started it."""
    subprocess.run(["scancel", "--full", "--signal=KILL", str(job.number)], check=True)
    return _submit_again(job, None)


def cancel(job: Job) -> str | None:
    """`scancel`."""
    subprocess.run(["scancel", str(job.number)], check=True)
    return _submit_again(job, None)


def _submit_again(job: Job, code: str | None) -> str | None:
    ended = job.wait_for_end()
    code_found = ended["ExitCode"]
    wrong = None
    if ended["JobState"] == "COMPLETED" or code_found == "0:0" or (code and code_found != code):
        wrong = f"{ended['JobState']} with {code_found}"
    # SLURM calls a job ended while it still waits for its processes.
    psutil.wait_procs(job.processes(), 30)
    job.submit()
    return wrong


def end_wall_time(job: Job) -> str | None:
    """The signal before the wall time ends: the program ends in order, and the job goes back to the queue."""
    subprocess.run(["scancel", "--batch", "--signal=USR1", str(job.number)], check=True)
    before = job.log
    job._slurm.until(lambda: any("exit code" in line for line in before()), 60, "the end of the program")
    wrong = None if any("exit code 143" in line for line in before()) else "\n".join(before()[-5:])
    job.wait_for_start()
    return wrong


def requeue(job: Job) -> str | None:
    """`scontrol requeue`."""
    subprocess.run(["scontrol", "requeue", str(job.number)], check=True)
    job.wait_for_start()
    return None


def take_node_down(job: Job) -> str | None:
    """An administrator takes the node down, and later up again."""
    node = job.node
    _set(node, "down")
    try:
        job.wait_for_start()
    finally:
        _set(node, "resume")
    return None


def crash_node(job: Job) -> str | None:
    """The node dies with all that runs there, and starts again."""
    node, folder = job.node, Path(os.environ["SLURM_CONF"]).parent
    daemon = psutil.Process(int((folder / node / "slurmd.pid").read_text()))
    steps = [p for p in psutil.process_iter() if p.name().startswith("slurmstepd") and _has(p, f"[{job.number}.")]
    for process in [daemon, *steps, *(c for s in steps for c in s.children(recursive=True)), *job.processes()]:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs([daemon], 10)
    _set(node, "down")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    subprocess.run(["slurmd", "-f", os.environ["SLURM_CONF"], "-N", node], check=True, env={**os.environ, "PATH": path})
    _set(node, "resume")
    job.wait_for_start()
    return None


def _has(process: psutil.Process, word: str) -> bool:
    try:
        return any(word in w for w in process.cmdline())
    except psutil.Error:
        return False


def _set(node: str, state: str) -> None:
    # A node whose daemon answers may have come back by itself, and is then not resumed.
    command = ["scontrol", "update", f"nodename={node}", f"state={state}", "reason=test"]
    subprocess.run(command, check=state != "resume", capture_output=True)


ENDINGS: dict[str, Callable[[Job], str | None]] = {
    "SIGKILL": kill_program,
    "SIGKILL, job": kill_all,
    "scancel": cancel,
    "wall time": end_wall_time,
    "requeue": requeue,
    "node down": take_node_down,
    "node crash": crash_node,
}


@pytest.fixture
def folder(monkeypatch) -> Iterable[Path]:
    """A folder with a short path: Ray's sockets are below it."""
    path = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    monkeypatch.chdir(path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.soak
def test_jobs_that_are_ended_in_any_stage_go_on_to_the_same_files(slurm, folder):
    """Each round ends the run's job once in every stage; `SMGEO_KILLS=7` tries round 7 alone."""
    recipe, tally = write_recipe(folder, WHOLE), Tally("jobs")
    whole = Process(recipe, folder / "whole", folder)
    assert whole.wait() == 0, whole.text
    expected = contents(whole.out)
    endings = list(ENDINGS)
    for number in chosen_rounds(max(1, int(os.environ.get("SOAK_ROUNDS", "1")) // 5)):
        name, random = f"jobs-{number}", Random(number)
        job = Job(slurm, folder, recipe, folder / name)
        for i, stage in enumerate(STAGES):
            ending = endings[(number + i) % len(endings)]
            if not job.until(stage):
                break
            time.sleep(random.uniform(0, 1.5))
            reached, started = job.stage, job.processes()
            wrong = ENDINGS[ending](job)
            left = psutil.wait_procs(started, 30)[1]
            tally.add(reached, ending, name, wrong or (f"still there: {left}" if left else None))
        ended = job.wait_for_end()
        log = "\n".join(job.log())
        found = differences(contents(job.out), expected) if ended["JobState"] == "COMPLETED" else [log[-2000:]]
        tally.add("finished", "compared", name, "; ".join(found) or None)
    print(f"\n{tally}")
    assert not tally.failures, str(tally)
