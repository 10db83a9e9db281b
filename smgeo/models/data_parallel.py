"""Data-parallel training: processes train one model as a team, and are started again from a checkpoint if one dies."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Protocol

from smgeo.errors import DivergedError, SmgeoError
from smgeo.files import JsonObject, parse_json, written_beside
from smgeo.models import load_model
from smgeo.models.backend import keras_backend
from smgeo.models.base import SoilMoistureModel
from smgeo.models.checkpoint import Checkpoint
from smgeo.models.rows import WindowSource
from smgeo.models.team import Team, check_backend
from smgeo.recipe.models import is_network

# Number of restarts after one of the processes died, without another epoch done.
TRIES = 3
# Seconds within which every process must report its address.
_MEET_S = 180
_LOOK_S = 0.2
# File of a start in which the first process says that the training diverged.
_DIVERGED = "diverged.txt"


class Processes(Protocol):
    """Running processes, such as `smgeo.hpc.workers.allocation.Step`."""

    @property
    def ended(self) -> int | None:
        """Exit code; None while they run."""
        ...

    def last_lines(self) -> str:
        """Return the last lines of their logs."""
        ...

    def stop(self) -> None:
        """End them."""
        ...


Start = Callable[[list[str], Path], Processes]


def fit_parallel(
    model: SoilMoistureModel,
    train: WindowSource,
    *,
    validation: WindowSource | None = None,
    workers: int,
    start: Start,
    folder: Path,
    checkpoint: Checkpoint,
    network: Mapping[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> SoilMoistureModel:
    """Return the model, trained by several processes on the same batches as by one, each with its share of every batch.

    Parameters
    ----------
    model : SoilMoistureModel
        A network that is not fitted.
    train, validation : Windows
        As for `fit`. Each process reads them.
    workers : int
        Number of processes.
    start : callable
        Starts a command as all processes, given the command and the path of its log; each process finds its number in `SLURM_PROCID`.
    folder : Path
        Used only by this training, visible to all processes; removed at the end.
    checkpoint : Checkpoint
        At a path that is visible to all processes, written after every epoch; the training continues from it, here and after restarts.
    network : mapping, optional
        Keys of `smgeo.hpc.sites.profile.NetworkSpec`: by which address a process is reached.
    progress : callable, optional
        Called with (epochs done, maximum number of epochs).
    say : callable
        Called with a line when processes are started again.

    Raises
    ------
    SmgeoError
        If the model is no network, Keras does not run on TensorFlow, or the processes die again and again.
    """
    if not is_network(model.kind):
        raise SmgeoError(
            f"{model.kind} is not trained in epochs, so several processes cannot share the work; train it with one"
        )
    check_backend(keras_backend())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    try:
        job = {
            "model": model,
            "train": train,
            "validation": validation,
            "checkpoint": {"path": checkpoint.path, "key": checkpoint.key},
            "network": network or {},
        }
        # Only the processes of this run read it, in a folder that only their user can read.
        (folder / "job.pickle").write_bytes(pickle.dumps(job, protocol=5))
        tries, before = 0, 0
        for attempt in count():
            here = folder / f"start-{attempt}"
            here.mkdir()
            command = [sys.executable, "-m", "smgeo.models.data_parallel", str(folder), here.name, str(workers)]
            processes = start(command, here / "rank-%t.log")
            try:
                code = _follow(processes, here, progress)
                lines = processes.last_lines()
            finally:
                processes.stop()
            if code == 0:
                return load_model(folder / "model")
            if (here / _DIVERGED).is_file():
                raise DivergedError((here / _DIVERGED).read_text(encoding="utf-8"))
            done = _epochs_done(here)[0]
            tries = 1 if done > before else tries + 1
            before = max(done, before)
            if tries > TRIES:
                raise SmgeoError(
                    f"training by {workers} processes: they ended {tries} times before an epoch was done (exit code {code}). {lines}"
                )
            say(
                f"a process ended with exit code {code} after epoch {before}; all are started again from the last checkpoint"
            )
        raise AssertionError  # `count` has no end
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _follow(processes: Processes, here: Path, progress: Callable[[int, int], None] | None) -> int:
    """Wait for the end, and report epochs."""
    while (code := processes.ended) is None:
        if progress:
            progress(*_epochs_done(here))
        time.sleep(_LOOK_S)
    return code


def _epochs_done(here: Path) -> tuple[int, int]:
    """Return the epochs done and their maximum, as the first process wrote them last."""
    try:
        last = parse_json((here / "epochs.jsonl").read_bytes().splitlines()[-1], finite=False)
        return int(last["epoch"]), int(last["epochs"])
    except (OSError, ValueError, LookupError, TypeError):  # the first line is being written
        return 0, 1


def main(folder: Path, start: str, workers: int) -> None:
    """Run as one of the processes."""
    rank = int(os.environ["SLURM_PROCID"])
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    with (folder / "job.pickle").open("rb") as file:
        job = pickle.load(file)  # noqa: S301 - written by the process that started this one
    team = Team(_meet(folder / start, rank, workers, job["network"]), rank)
    model, kept = job["model"], Checkpoint(**job["checkpoint"])
    with (folder / start / "epochs.jsonl").open("a", encoding="utf-8") if rank == 0 else open(os.devnull, "w") as log:
        try:
            for scores in model.fit_by_epoch(job["train"], validation=job["validation"], checkpoint=kept, team=team):
                log.write(json.dumps(scores) + "\n")
                log.flush()
        except DivergedError as error:  # all of them see it, and starting again would not help
            if rank == 0:
                with written_beside(folder / start / _DIVERGED) as part:
                    part.write_text(str(error), encoding="utf-8")
            raise
    if rank == 0:
        model.save(folder / "model")


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone: it would run besides those of the next start."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _meet(here: Path, rank: int, workers: int, network: JsonObject) -> list[str]:
    """Return the addresses of all processes, exchanged by files."""
    from smgeo.hpc.sites.network import find_address
    from smgeo.hpc.sites.profile import NetworkSpec

    address = find_address(NetworkSpec(**network))
    with socket.socket() as probe:  # TensorFlow binds it in a moment
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    with written_beside(here / f"address-{rank}") as part:
        part.write_text(f"{address}:{port}", encoding="utf-8")
    end = time.monotonic() + _MEET_S
    files = [here / f"address-{r}" for r in range(workers)]
    while missing := [f.name.removeprefix("address-") for f in files if not f.exists()]:
        if time.monotonic() > end:
            raise SmgeoError(
                f"{len(missing)} of {workers} processes did not report an address within {_MEET_S} s: {', '.join(missing)}; see their logs"
            )
        time.sleep(0.05)
    return [f.read_text(encoding="utf-8") for f in files]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
