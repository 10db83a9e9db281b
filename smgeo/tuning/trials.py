"""The trials of a search in its folder: one table, replaced as a whole, and the identity of the search."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from smgeo.errors import SmgeoError
from smgeo.files import JsonObject, hold_lock, load_json, write_json, written_beside

_TABLE = "trials.parquet"
_SEARCH = "search.json"
_LOCK = ".lock"
# Values that may change when a search continues: more trials, and more or fewer at once.
_MAY_CHANGE = ("trials", "concurrent")
_ERROR_LETTERS = 500


def one_line(text: str) -> str:
    """Return an error as the table keeps it: one line, without its end if it is long."""
    return " ".join(text.split())[:_ERROR_LETTERS]


class OtherSearchError(SmgeoError):
    """A folder contains another search than the one asked for; `changes` lists the differences."""

    def __init__(self, folder: Path, changes: str) -> None:
        self.changes = changes
        super().__init__(
            f"{folder} contains another search: {changes}. Give an empty folder, or the same values to continue it (trials "
            "and concurrent may change)"
        )


@dataclass
class Trial:
    """One trial of a search.

    Attributes
    ----------
    number : int
        From 0.
    params : dict
        Searched parameters, JSON types.
    seed : int
        The model's.
    started : pandas.Timestamp
        UTC.
    status : {"running", "finished", "stopped", "failed", "lost"}
        `stopped` by the scheduler; `lost` if the process that ran it died, or its machine kept it from writing or reading. A table that is
        read back may have `running` ones: they were cut off.
    rmse, validation_rmse : list of float
        Scores after each epoch, in the target's unit; empty if the model has none.
    seconds : float
        Time of training and scoring.
    node, pid, threads
        Name of the machine, process, and threads of each of its pools.
    error : str
        One line, if it failed.
    """

    number: int
    params: JsonObject
    seed: int
    started: pd.Timestamp
    status: str = "running"
    rmse: list[float] = field(default_factory=list)
    validation_rmse: list[float] = field(default_factory=list)
    seconds: float = 0.0
    node: str = ""
    pid: int = 0
    threads: int = 1
    error: str = ""

    @property
    def best_epoch(self) -> int:
        """Epoch of the least validation RMSE, from 1; 0 before the first."""
        return int(np.argmin(self.validation_rmse)) + 1 if self.validation_rmse else 0

    @property
    def score(self) -> float | None:
        """Least validation RMSE; None if the trial failed, was lost, or has none yet."""
        return min(self.validation_rmse) if self.validation_rmse and self.status not in ("failed", "lost") else None

    def to_row(self) -> JsonObject:
        """Return the trial's row of the table."""
        return {
            "trial": self.number,
            "status": self.status,
            **{f"params.{name}": value for name, value in self.params.items()},
            "seed": self.seed,
            "epochs": len(self.validation_rmse),
            "validation_rmse": min(self.validation_rmse, default=np.nan),
            "best_epoch": self.best_epoch,
            "rmse": self.rmse,
            "validation_rmse_curve": self.validation_rmse,
            "seconds": self.seconds,
            "started": self.started,
            "node": self.node,
            "pid": self.pid,
            "threads": self.threads,
            "error": self.error.encode("utf-8", "backslashreplace").decode(),
            "params": json.dumps(self.params),
        }

    @classmethod
    def from_row(cls, row: JsonObject) -> Trial:
        """Return the trial of a row that was read back."""
        return cls(
            number=int(row["trial"]),
            params=json.loads(row["params"]),
            seed=int(row["seed"]),
            started=row["started"],
            status=row["status"],
            rmse=[float(v) for v in row["rmse"]],
            validation_rmse=[float(v) for v in row["validation_rmse_curve"]],
            seconds=float(row["seconds"]),
            node=row["node"],
            pid=int(row["pid"]),
            threads=int(row["threads"]),
            error=row["error"],
        )


class TrialTable:
    """The trials of one search, in `trials.parquet` of its folder.

    The file is written under another name and renamed, so that a killed search leaves a whole table. It has one row a trial, in the order of
    numbers: `trial`, `status`, one column a searched parameter (`params.NAME`; text if its values have several types), `seed`,
    `epochs` (run), `validation_rmse` (the least) and its `best_epoch`, the curves `rmse` and `validation_rmse_curve` (one number an
    epoch; all errors in the target's unit), `seconds`, `started` (UTC), `node`, `pid`, `threads`, `error`, and `params`, all parameters
    as JSON.

    Attributes
    ----------
    path : Path
        The file.
    trials : dict of int to Trial
    """

    def __init__(self, folder: Path, trials: Mapping[int, Trial]) -> None:
        self.path = folder / _TABLE
        self.trials = dict(trials)

    @classmethod
    @contextmanager
    def open(cls, folder: Path, search: JsonObject, *, resume: bool) -> Iterator[TrialTable]:
        """Open the table of a search; no other process can open it meanwhile.

        Parameters
        ----------
        folder : Path
            Created if it does not exist.
        search : dict
            All that identifies the search, JSON types; written to `search.json`.
        resume : bool
            Keep the trials of the folder; if false, a folder with a search is refused. If every trial failed or was lost, none is
            kept.

        Raises
        ------
        OtherSearchError
            If the folder contains another search.
        SmgeoError
            If another search is at work in the folder, or it contains one and `resume` is false.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise SmgeoError(f"out {folder} is a file, or below one; give a folder") from None
        with hold_lock(folder / _LOCK, f"another search is at work in {folder}; wait for it, or give another folder"):
            _check_same(folder / _SEARCH, search, resume)
            write_json(folder / _SEARCH, search)
            trials = read_trials(folder)
            yield cls(folder, {} if all(t.status in ("failed", "lost") for t in trials.values()) else trials)

    def write(self) -> None:
        """Write the table under another name and rename it."""
        with written_beside(self.path) as part:
            self.frame().to_parquet(part, index=False)

    def frame(self) -> pd.DataFrame:
        """Return one row a trial, in the order of numbers."""
        rows = pd.DataFrame([self.trials[n].to_row() for n in sorted(self.trials)])
        for name in (c for c in rows if str(c).startswith("params.")):
            if not _is_plain(rows[name]):
                rows[name] = [json.dumps(v) for v in rows[name]]
        return rows

    def count(self, *status: str) -> int:
        """Return how many trials have one of these."""
        return sum(t.status in status for t in self.trials.values())

    def best(self) -> Trial | None:
        """Return the trial with the least validation RMSE that did not fail; the first, if several have it."""
        scored = [t for _, t in sorted(self.trials.items()) if t.score is not None and t.status != "running"]
        return min(scored, key=lambda t: min(t.validation_rmse), default=None)


def read_trials(folder: Path) -> dict[int, Trial]:
    """Return the trials of the table in a folder, by number; none if there is no table.

    Raises
    ------
    SmgeoError
        If the table is damaged.
    """
    path = folder / _TABLE
    if not path.exists():
        return {}
    try:
        rows = pd.read_parquet(path).to_dict("records")
        trials = [Trial.from_row({str(k): v for k, v in row.items()}) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:  # Arrow's own errors are among these
        raise SmgeoError(
            f"{path} is damaged ({error}); give an empty folder, or remove the file to start again"
        ) from None
    return {t.number: t for t in trials}


def _is_plain(values: pd.Series) -> bool:
    """Return True if a column of Parquet can contain these as they are: all numbers, all text or all bool."""
    return any(all(isinstance(v, t) for v in values) for t in (bool, str)) or all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in values
    )


def _check_same(path: Path, search: JsonObject, resume: bool) -> None:
    """Refuse a folder with another search, or with any that is not to be continued."""
    if not path.exists() and (path.parent / _TABLE).exists():
        raise SmgeoError(
            f"{path.parent} contains {_TABLE} without {_SEARCH}, which identifies the search; give an empty folder"
        )
    if not holds_search(path.parent):  # at most one that ended before its first trial
        return
    if not resume:
        raise SmgeoError(
            f"{path.parent} contains a search already, and resume is false; give an empty folder, or continue with resume=True"
        )
    old = load_json(path, "give an empty folder")
    new = json.loads(json.dumps(search))
    names = [n for n in dict.fromkeys([*old, *new]) if n not in _MAY_CHANGE and old.get(n) != new.get(n)]
    if names:
        changes = "; ".join(_change(n, old.get(n), new.get(n)) for n in names)
        raise OtherSearchError(path.parent, changes)


def holds_search(folder: Path) -> bool:
    """Return True if a folder contains the trials of a search."""
    return (folder / _SEARCH).exists() and (folder / _TABLE).exists()


def _change(name: str, old: object, new: object) -> str:
    """Describe a changed value; of mappings, only the keys that differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [k for k in dict.fromkeys([*old, *new]) if old.get(k) != new.get(k)]
        return "; ".join(_change(f"{name}.{k}", old.get(k), new.get(k)) for k in keys)
    if name == "data":
        return "the data differ (stations, features, values, or how they were prepared and cut into windows)"
    return f"{name} was {_short(old)} and is {_short(new)}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:120]}..."
