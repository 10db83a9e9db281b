"""Tables about the quality of models: scores, cross-validation, leakage audit, prediction intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from smgeo.evaluation.intervals import FEW_CLUSTERS, LEAST_CLUSTERS
from smgeo.report.schema import (
    Coverage,
    CrossValidation,
    GroupScores,
    NearestDistances,
    PartScores,
    PredictionIntervals,
    Repeats,
    Results,
    ScoreIntervals,
    StationScore,
    StationScores,
)
from smgeo.report.table import (
    EVERYWHERE,
    FILES,
    NOT_TERMINAL,
    PAGE,
    Column,
    Output,
    Record,
    Table,
    as_percent_interval,
    as_value,
    count_column,
    interval_column,
    number_column,
    percent_column,
    text_column,
)

_PartName = TypeVar("_PartName", bound=str)


def four_scores(units: str, *, optional: bool = False) -> list[Column]:
    """Return columns of RMSE, ubRMSE, bias and r."""
    named = partial(number_column, optional=optional)
    return [named("rmse", "RMSE", units), named("ubrmse", "ubRMSE", units), named("bias", unit=units), named("r")]


def scores_table(
    models: Mapping[str, Mapping[_PartName, PartScores]],
    intervals: Mapping[str, Mapping[_PartName, ScoreIntervals]],
    over_stations: Mapping[str, Mapping[_PartName, StationScores]],
    units: str,
    about_parts: str = "",
) -> Table:
    """Return the scores of each model on each part: over stations first, then pooled over rows, with intervals.

    Parameters
    ----------
    models, intervals, over_stations : mapping
        Model -> part -> scores, intervals of the pooled ones, and scores over stations.
    units : str
        Unit of the target.
    about_parts : str
        A note about the parts.
    """
    records: list[Record] = []
    for model, parts in models.items():
        for part, scores in parts.items():
            ends, each = intervals.get(model, {}).get(part), over_stations.get(model, {}).get(part)
            records.append({"model": model, "part": part, **_score_record(scores, ends, each)})
    found = [each for parts in over_stations.values() for each in parts.values()]
    return Table.of(
        "scores",
        "Scores",
        [text_column("model"), text_column("part"), *_score_columns(units)],
        records,
        marked=lambda record: record["part"] == "test",
        notes=(
            f"RMSE, ubRMSE and bias (estimate minus observation) are in {units}. Mean and median are over stations, every station counted once; "
            "pooled scores are over all rows of the part, so that stations with many rows count more.",
            _about_clusters(found),
            about_parts,
            "Scores of the train part include rows that were dropped from training as outliers. A model with a longer window needs more days "
            "before a row, so it is scored on fewer rows.",
        ),
    )


def _score_columns(units: str) -> Iterator[Column]:
    """Yield the columns of scores: those over stations, then the pooled ones; files have all, a page what fits on it."""
    yield count_column("stations")
    for score in four_scores(units):
        (name,) = score.names
        is_rmse = name == "rmse"
        median = EVERYWHERE if is_rmse else FILES if name == "bias" else NOT_TERMINAL
        yield number_column(
            f"{name}_mean", f"mean {score.heading}", score.unit, EVERYWHERE if is_rmse else FILES, optional=True
        )
        yield _ends_column(f"{name}_mean", f"mean {score.heading}", score.unit, EVERYWHERE if is_rmse else FILES)
        yield number_column(f"{name}_median", f"median {score.heading}", score.unit, median)
        yield _ends_column(f"{name}_median", f"median {score.heading}", score.unit, FILES)
    for score in four_scores(units):
        (name,) = score.names
        shown = FILES if name == "ubrmse" else NOT_TERMINAL if name == "bias" else EVERYWHERE
        yield number_column(name, f"pooled {score.heading}", score.unit, shown)
        ends, heading = (f"{name}_low", f"{name}_high"), f"pooled {score.heading} 95 % interval"
        yield interval_column(heading, score.unit, ends, EVERYWHERE - PAGE if name == "rmse" else FILES)
    yield count_column("n", "rows")
    yield count_column("clusters", outputs=FILES, optional=True)
    yield count_column("stations_of_few_rows", "stations without ubRMSE and r", FILES, optional=True)


def _ends_column(name: str, heading: str, unit: str, outputs: frozenset[Output]) -> Column:
    return interval_column(f"{heading} 95 % interval", unit, (f"{name}_low", f"{name}_high"), outputs, optional=True)


def _about_clusters(found: Sequence[StationScores]) -> str:
    """Return what intervals are over, and whether they can be relied on."""
    if not found:
        return ""
    kinds, least = sorted({each.clusters_by for each in found}), min(each.clusters for each in found)
    few = max(each.stations_of_few_rows for each in found)
    equal = min((each.clusters_equal for each in found if each.clusters_equal is not None), default=float(least))
    words = [
        f"Intervals are over clusters of stations ({', '.join(kinds)}), which alone are taken for independent: they show how a score would vary "
        "with other clusters of the same kind."
    ]
    if least < LEAST_CLUSTERS:
        words.append(f"A part has {least} of them; fewer than {LEAST_CLUSTERS} have no interval.")
    elif least < FEW_CLUSTERS:
        words.append(
            f"A part has {least} of them: with fewer than {FEW_CLUSTERS}, an interval is wide and says little."
        )
    if equal < least / 2:
        words.append(
            f"Their sizes differ: in a part they count as {equal:.1f} of equal size. One cluster makes most of the pooled scores there."
        )
    networks = max(each.networks_of_several or 0 for each in found)
    if networks:
        words.append(
            f"Stations of one network are taken for independent of each other, in {networks} of the networks of a part: where their errors are "
            "alike, intervals are too narrow and p-values too small. `cluster: network` takes networks."
        )
    if few:
        words.append(
            f"Up to {few} stations of a part have fewer than {found[0].least_rows} rows, and neither ubRMSE nor r."
        )
    return " ".join(words)


def _score_record(scores: PartScores, ends: ScoreIntervals | None, each: StationScores | None) -> Record:
    record: dict[str, object] = {**dict(scores), **dict(scores.per_station)}
    for name, both in () if ends is None else ends:
        record |= {f"{name}_low": both[0], f"{name}_high": both[1]}
    if each is not None:
        record |= {"clusters": each.clusters, "stations_of_few_rows": each.stations_of_few_rows}
        for name in ("rmse", "ubrmse", "bias", "r"):
            score: StationScore = getattr(each, name)
            for which, interval in (("mean", score.mean_interval), ("median", score.median_interval)):
                record[f"{name}_{which}"] = getattr(score, which)
                record |= {f"{name}_{which}_low": interval[0], f"{name}_{which}_high": interval[1]}
    return record


def groups_table(results: Results) -> Table:
    """Return the test scores of each model by group of stations, for files."""
    units = results.units
    return Table.of(
        "groups",
        "Test scores by group of stations",
        [
            text_column("by"),
            text_column("group"),
            text_column("model"),
            count_column("stations"),
            count_column("n", "rows"),
            *four_scores(units),
        ],
        [
            {"by": label, "model": model, **dict(group)}
            for label, models in results.groups.items()
            for model, groups in models.items()
            for group in groups
        ],
        outputs=FILES,
    )


_GROUP_NOTES = {
    "climate": "Köppen-Geiger class from the archive's static variables.",
    "texture": "USDA class of the sand, silt and clay layers at the station.",
}


def groups_by_model(results: Results) -> Iterator[Table]:
    """Yield for each grouping a table of RMSEs with one column a model, for pages."""
    for label, models in results.groups.items():
        first: dict[str, GroupScores] = {}
        rmse: dict[str, dict[str, object]] = {}
        for model, groups in models.items():
            for group in groups:
                first.setdefault(group.group, group)
                rmse.setdefault(group.group, {})[f"model {model}"] = group.rmse
        yield Table.of(
            f"groups_{label}",
            f"Test RMSE by {label}",
            [
                text_column("group", label),
                count_column("stations"),
                count_column("n", "rows"),
                *(number_column(f"model {model}", model, results.units) for model in results.models),
            ],
            [{**dict(first[name]), **rmse[name]} for name in sorted(first)],
            notes=(
                "Stations and rows are those of the first model; rows of the others, ubRMSE, bias and r are in `tables/groups.csv`. A group of one or "
                "two stations is an anecdote.",
                _GROUP_NOTES.get(label, ""),
            ),
            outputs=PAGE,
        )


def cross_validation_table(results: Results) -> Table:
    """Return the scores of cross-validations."""
    selected = any(c.selected for c in results.cross_validation.values())
    return Table.of(
        "cross_validation",
        "Cross-validation",
        [
            text_column("model"),
            text_column("method"),
            count_column("folds"),
            number_column("rmse_mean", "mean RMSE", results.units, optional=True),
            _ends_column("rmse_mean", "mean RMSE", results.units, NOT_TERMINAL),
            number_column("ubrmse_mean", "mean ubRMSE", results.units, NOT_TERMINAL, optional=True),
            number_column("r_mean", "mean r", "", NOT_TERMINAL, optional=True),
            number_column("rmse_median", "median RMSE", results.units, FILES, optional=True),
            number_column("ubrmse_median", "median ubRMSE", results.units, FILES, optional=True),
            number_column("r_median", "median r", "", FILES, optional=True),
            count_column("gap_days", "gap (days)", optional=True),
            number_column("w", "W", "", NOT_TERMINAL, optional=True),
            number_column("r2_mean_of_folds", "R² mean of folds"),
            number_column("r2_pooled", "R² pooled"),
            number_column("r2_station_means", "R² station means"),
            number_column("rmse_pooled", "RMSE pooled", results.units),
            count_column("n", "rows"),
            count_column("stations", outputs=NOT_TERMINAL),
        ],
        [_fold_record(model, found) for model, found in results.cross_validation.items()],
        notes=(
            "Mean RMSE is over stations, every station counted once. R² mean of folds is the squared correlation in each fold, averaged. R² pooled "
            "is 1 − SSE/SST over all held-out rows; it is below 0 if the observations' mean would be better. R² station means is the same for the "
            "means of stations: the part of the pattern in space that is explained.",
            "Features of models named “selected” were selected on the training stations of each fold (`tables/selected_features.csv`)."
            if selected
            else "",
            "Random folds share stations and days with the training rows, so they flatter a model.",
            *dict.fromkeys(_describe_distances(c.knndm) for c in results.cross_validation.values() if c.knndm),
        ),
    )


def _describe_distances(found: NearestDistances) -> str:
    """Return one sentence on how far kNNDM folds, and the map, are from training places."""
    made = "random folds" if found.clusters is None else f"folds of {found.clusters:,} clusters"
    return (
        f"kNNDM, {made}: the median distance to the nearest training place is {as_value(found.median_predicted)} from pixels of the map, "
        f"{as_value(found.median_held_out)} from held-out places and {as_value(found.median_left_out)} between places; W is "
        f"{as_value(found.w)} ({found.unit}). Where W is large against the first median, the score does not stand for the map."
    )


def _fold_record(model: str, found: CrossValidation) -> Record:
    record = {} if found.scores is None else _score_record(found.scores, found.intervals, found.over_stations)
    matched = {} if found.knndm is None else {"w": found.knndm.w}
    return {"model": model, **record, **dict(found), **matched}


def repeats_table(results: Results) -> Table:
    """Return what varies by split and what by training."""
    units = results.units
    scores = [("rmse_mean", "mean RMSE", EVERYWHERE), ("rmse", "pooled RMSE", EVERYWHERE)]
    scores += [("ubrmse_mean", "mean ubRMSE", NOT_TERMINAL), ("r_mean", "mean r", NOT_TERMINAL)]
    columns = [text_column("model"), count_column("splits"), count_column("seeds")]
    for name, heading, shown in scores:
        unit = "" if name.startswith("r_") else units
        columns += [
            number_column(f"{name} mean", heading, unit, shown),
            number_column(f"{name} sd", f"{heading}, sd", unit, shown if name == "rmse_mean" else NOT_TERMINAL),
            number_column(f"{name} split", f"{heading}, sd by split", unit, shown, optional=True),
            number_column(f"{name} training", f"{heading}, sd by training", unit, shown, optional=True),
        ]
    return Table.of(
        "repeats",
        "Other splits and seeds",
        columns,
        [_repeats_record(model, found) for model, found in results.repeats.items()],
        notes=(
            "Test stations of each split, with each seed of training. Standard deviations from an analysis of variance: how the score varies with "
            "the stations that are drawn for the parts, and with the seed of one training. A difference between models that is smaller than these "
            "is not one.",
        ),
    )


def _repeats_record(model: str, found: Repeats) -> Record:
    record: dict[str, object] = {"model": model}
    record |= {"splits": len({r.split for r in found.runs}), "seeds": len({r.seed for r in found.runs})}
    for name, score in found.scores.items():
        record |= {
            f"{name} mean": score.mean,
            f"{name} sd": score.sd,
            f"{name} split": score.split_sd,
            f"{name} training": score.training_sd,
        }
    return record


def selected_features_table(results: Results) -> Table:
    """Return the number of folds in which each feature was selected."""
    records: list[Record] = []
    for model, found in results.cross_validation.items():
        counts = Counter(feature for fold in found.selected or () for feature in fold)
        records += [
            {"model": model, "feature": feature, "folds chosen": count, "folds": found.folds}
            for feature, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ]
    return Table.of(
        "selected_features",
        "Selected features",
        [text_column("model"), text_column("feature"), count_column("folds chosen"), count_column("folds")],
        records,
        outputs=FILES,
    )


def leakage_table(results: Results) -> Table:
    """Return the scores and distances of the leakage audit."""
    audit = results.leakage_audit
    units = audit.units if audit else ""
    km = partial(number_column, unit="km", digits=2)
    return Table.of(
        "leakage_audit",
        "Leakage audit",
        [
            text_column("rows held out"),
            *four_scores(units),
            number_column("r2_pooled", "R² pooled"),
            number_column("r2_mean_of_folds", "R² mean of folds"),
            number_column("r2_station_means", "R² station means"),
            count_column("n", "rows"),
            km("km_median", "km to training"),
            km("km_min", "least km", outputs=FILES),
            km("km_max", "most km", outputs=FILES),
            number_column("feature_median", "features to training", outputs=NOT_TERMINAL, digits=2),
            number_column("feature_min", "least in features", outputs=FILES, digits=2),
            number_column("feature_max", "most in features", outputs=FILES, digits=2),
            number_column("feature_between_stations", "between stations", outputs=NOT_TERMINAL, digits=2),
        ],
        [{"rows held out": method, **dict(split)} for method, split in audit.splits.items()] if audit else [],
        finding=audit.meaning if audit else "",
        notes=(
            f"The same quick model ({audit.model}) on the same rows, in {audit.folds} folds of random rows, of periods ({audit.gap_days} days apart "
            "from training) and of locations. R² pooled is 1 − SSE/SST over all held-out rows. Distances are medians from held-out rows to the nearest "
            "training station (km) and to the nearest training row (standard deviations of the features); the last column is the latter between "
            "training rows of different stations.",
            *audit.notes,
        )
        if audit
        else (),
    )


def importance_table(results: Results) -> Table:
    """Return the importance of features, for files; pages have a picture."""
    units = results.units
    return Table.of(
        "importance",
        "Importance of features",
        [
            text_column("model"),
            text_column("feature"),
            number_column("increase", unit=units),
            interval_column("95 % interval", units),
            percent_column("stations_worse", "stations worse"),
            count_column("rows"),
        ],
        [{"model": model, **dict(row)} for model, rows in results.importance.items() for row in rows],
        outputs=FILES,
    )


def learning_curve_table(results: Results) -> Table:
    """Return the points of learning curves, for files; pages have a picture."""
    units = results.units
    return Table.of(
        "learning_curve",
        "Learning curve",
        [
            text_column("model"),
            number_column("fraction", digits=2),
            count_column("stations"),
            count_column("rows"),
            number_column("train_rmse", "train RMSE", units),
            number_column("rmse", "RMSE", units),
            interval_column("95 % interval", units),
            count_column("n", "test rows"),
        ],
        [{"model": model, **dict(point)} for model, points in results.learning_curve.items() for point in points],
        outputs=FILES,
    )


def _coverage_records(model: str, found: PredictionIntervals) -> Iterator[Record]:
    yield {"by": "all", "group": "all", "model": model, **_coverage_record(found)}
    for label, groups in found.groups.items():
        for group in groups:
            yield {"by": label, "model": model, "level": found.level, **_coverage_record(group)}


def _coverage_record(found: Coverage) -> Record:
    low, high = found.covered_groups_interval or (None, None)
    return {**dict(found), "covered_groups_low": low, "covered_groups_high": high}


def _group_label(value: object) -> str:
    by, group = value if isinstance(value, tuple) else ("", value)
    return str(group) if by == "all" else f"{by}: {group}"


def prediction_intervals_table(results: Results) -> Table:
    """Return the coverage of prediction intervals; terminals leave out the groups of stations."""
    return Table.of(
        "prediction_intervals",
        "Prediction intervals",
        [
            text_column("model"),
            percent_column("level", "level", digits=0),
            Column(("by", "group"), "test stations", _group_label, "left", outputs=NOT_TERMINAL),
            percent_column("covered", "rows covered"),
            percent_column("covered_stations", "mean of stations"),
            percent_column("covered_groups", "mean of groups", optional=True),
            Column(
                ("covered_groups_low", "covered_groups_high"), "its 95 % interval", as_percent_interval, optional=True
            ),
            count_column("places", optional=True),
            number_column("width", "mean width", results.units),
            count_column("stations"),
            count_column("rows"),
        ],
        [r for model, found in results.prediction_intervals.items() for r in _coverage_records(model, found)],
        detail=lambda record: record["by"] != "all",
        notes=(
            "Share of test observations inside intervals that were learned at places that the model was not trained on. The level is promised for "
            "the mean over places (or groups of stations), if test places are like these; its interval is over clusters, none with fewer than "
            f"{FEW_CLUSTERS}. Stations that a split forces into training by their extreme values are never test stations, so that intervals that "
            f"were learned with them hold slightly more. Width in {results.units}.",
        ),
    )


def _main_weights(value: object) -> str:
    """Return the features with more than a tenth of the largest weight, the largest first."""
    weights = {str(k): float(v) for k, v in value.items()} if isinstance(value, Mapping) else {}
    most = max(weights.values(), default=0.0)
    return ", ".join(sorted((f for f, w in weights.items() if w > most / 10), key=lambda f: -weights[f]))


def applicability_table(results: Results) -> Table:
    """Return errors inside and outside the area of applicability."""
    units = results.units
    return Table.of(
        "applicability",
        "Area of applicability",
        [
            text_column("model"),
            number_column("threshold"),
            count_column("folds", outputs=FILES),
            count_column("reference_rows", "reference rows", FILES),
            count_column("rows"),
            percent_column("share_inside", "test rows inside"),
            number_column("rmse_inside", "RMSE inside", units),
            number_column("rmse_expected", "RMSE expected there", units),
            number_column("rmse_outside", "RMSE outside", units),
            number_column("index_median", "median index", outputs=FILES),
            text_column("weights", "weights above a tenth of the largest", PAGE, _main_weights),
        ],
        [{"model": model, **dict(found)} for model, found in results.applicability.items()],
        notes=(
            "A row is inside if it is as close to a training row as training rows of different groups of stations are to each other (dissimilarity "
            "index of Meyer and Pebesma 2021, with features weighted by their importance; features of weight 0 do not count). Maps have a flag for "
            "every pixel. The RMSE expected is that of held-out training and validation stations at the same dissimilarity.",
        ),
    )
