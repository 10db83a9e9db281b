"""Several splits and several seeds of training: how much of a score is the split, and how much the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np
import pandas as pd
import xarray as xr

from smgeo.evaluation.cross_validation import Learner
from smgeo.evaluation.parts import evaluate
from smgeo.evaluation.scores import finite_or_none
from smgeo.models.protocol import Model
from smgeo.prepare import Split, learnable, part_rows, training_windows
from smgeo.recipe.preparation import PrepareSpec

# Scores that are repeated: pooled ones, and means over stations.
REPEATED = ("rmse", "ubrmse", "bias", "r", "rmse_mean", "ubrmse_mean", "bias_mean", "r_mean")


class Repeated(TypedDict):
    """A score over splits and seeds, see `summarise_repeats`."""

    mean: float | None
    sd: float | None
    split_sd: float | None
    training_sd: float | None


def score_repeat(
    learner: Learner, ds: xr.Dataset, split: Split, prepare: PrepareSpec, features: Sequence[str], target: str
) -> dict[str, float | None]:
    """Train on one split and return the scores at its test stations (or days): those of `REPEATED`, `n` and `stations`.

    Parameters
    ----------
    learner : Learner
        Model with the seed of its training, and its window.
    ds : xarray.Dataset
        Station cube, not prepared.
    split : Split
    prepare : PrepareSpec
        Preparation, learned on the training part alone.
    features, target : sequence of str, str
    """
    held = part_rows(ds, split, "validation", target) if learner.needs_validation and split.validation else None
    _, windows, validation = training_windows(
        learnable(ds, split), held, prepare, features, target, length=learner.length, mode=learner.mode
    )
    model: Model = learner.make().fit(windows, validation=validation)
    only_test = split if split.periods else replace(split, train=(), validation=(), forced={})
    found = evaluate(model, ds, only_test)
    pooled, each = found.scores["test"], found.over_stations["test"]
    return {
        "rmse": pooled["rmse"],
        "ubrmse": pooled["ubrmse"],
        "bias": pooled["bias"],
        "r": pooled["r"],
        "n": pooled["n"],
        "stations": pooled["stations"],
        "rmse_mean": each["rmse"]["mean"],
        "ubrmse_mean": each["ubrmse"]["mean"],
        "bias_mean": each["bias"]["mean"],
        "r_mean": each["r"]["mean"],
    }


def summarise_repeats(table: pd.DataFrame) -> dict[str, Repeated]:
    """Return the mean of each score over splits and seeds, and the standard deviations that splits and trainings cause.

    A score is taken as a sum of a mean, an effect of the split and one of the training (a one-way analysis of variance with random effects,
    Searle, Casella and McCulloch 1992, chapter 3, with as many seeds in each split). `training_sd` is that between seeds of one split; from
    the variance between the splits' means the share of the seeds is taken, which leaves `split_sd`, 0 if nothing is left.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns `split`, `seed`, and those of `REPEATED`; every split with the same seeds.

    Returns
    -------
    dict
        Score -> `mean`; `sd` of all runs; `split_sd` and `training_sd`, which need two splits and two seeds, None without them: of one seed
        the effect of the training cannot be told from that of the split.
    """
    out: dict[str, Repeated] = {}
    for name in REPEATED:
        values = table.pivot(index="split", columns="seed", values=name).to_numpy(dtype="float64")
        splits, seeds = values.shape
        within = float(values.var(axis=1, ddof=1).mean()) if seeds > 1 else None
        between = float(values.mean(axis=1).var(ddof=1)) if splits > 1 else None
        left = None if between is None or within is None else max(between - within / seeds, 0.0)
        spread = float(values.std(ddof=1)) if values.size > 1 else None
        out[name] = {
            "mean": finite_or_none(float(values.mean())),
            "sd": None if spread is None else finite_or_none(spread),
            "split_sd": None if left is None else finite_or_none(float(np.sqrt(left))),
            "training_sd": None if within is None else finite_or_none(float(np.sqrt(within))),
        }
    return out


def repeat_all(
    make: Callable[[int], Learner],
    ds: xr.Dataset,
    splits: Mapping[int, Split],
    seeds: Sequence[int],
    prepare: PrepareSpec,
    features: Sequence[str],
    target: str,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Train on each split with each seed; return one row each: `split` (its seed), `seed`, and the scores of `score_repeat`.

    Parameters
    ----------
    make : callable
        Seed -> Learner.
    splits : mapping
        Seed of the split -> split.
    seeds : sequence of int
        Seeds of training.
    ds, prepare, features, target
        As for `score_repeat`.
    progress : callable, optional
        Called with (models trained, total models).
    """
    rows = []
    for number, split in splits.items():
        for seed in seeds:
            rows.append(
                {"split": number, "seed": seed, **score_repeat(make(seed), ds, split, prepare, features, target)}
            )
            if progress:
                progress(len(rows), len(splits) * len(seeds))
    return pd.DataFrame(rows)
