"""Schema of `results.json` and `provenance.json` of a run, checked when they are written and read.

Each model describes one JSON object, and its fields are the object's keys. Errors and observations are in the unit of the target. A number that
is not defined (r of a constant, an interval over one station) is None; a key that the run has nothing for is absent. `docs/results.md` explains each key.

The module is long because its models are one schema, which readers look up in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue

from smgeo.errors import SmgeoError
from smgeo.files import JsonObject, load_json
from smgeo.prepare import Split
from smgeo.recipe.spec import Spec, parse_spec

# Raised whenever a key is added, removed or changes its meaning. Files without the key are version 0, which has the keys of version 1.
# Version 2 adds `features`, and to variables of the grid all but `kind`, `units`, days and shares.
# Version 3 adds `over_stations`, `baselines`, `against_baseline`, `distances`, `repeats`, to `split` `groups` and `in_buffer`, to comparisons `clusters`,
# and to cross-validation `knndm` and the scores of a part.
SCHEMA_VERSION = 3

Part = Literal["train", "validation", "test"]
Number = float | None
# JSON has lists only. Their items stay strict.
Interval = Annotated[tuple[Number, Number], Field(strict=False)]
_Pair = Annotated[tuple[float, float], Field(strict=False)]
_Days = Annotated[tuple[str, str], Field(strict=False)]


class Entry(Spec):
    """A JSON object of a file that smgeo wrote: no unknown keys, no text for a number, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Target(Entry):
    """Variable that the models estimate, its unit, and the depths (m) of the sensors."""

    variable: str
    units: str
    depth_m: _Pair


class Medians(Entry):
    """Medians of scores over stations, or over cells."""

    rmse_median: Number
    ubrmse_median: Number
    bias_median: Number
    r_median: Number


class PooledScores(Entry):
    """Scores pooled over `n` rows; bias is estimate minus observation."""

    rmse: Number
    ubrmse: Number
    bias: Number
    r: Number
    n: int


class PartScores(PooledScores):
    """Scores of one model on one part of the split."""

    stations: int
    per_station: Medians


class ScoreIntervals(Entry):
    """Intervals of 95 % of the pooled scores over clusters of stations."""

    rmse: Interval
    ubrmse: Interval
    bias: Interval
    r: Interval


class StationScore(Entry):
    """Mean and median of a score over stations, with intervals of 95 % over clusters."""

    mean: Number
    mean_interval: Interval
    median: Number
    median_interval: Interval


class StationScores(Entry):
    """Scores over stations, each counted once.

    `stations_of_few_rows` have fewer than `least_rows` rows, and neither ubRMSE nor r. `clusters` is the number of what is taken for independent,
    `clusters_equal` how many of equal size they count as by their rows, and `clusters_by` what that is: `place`, `network`, ...
    `networks_of_several` is the number of networks with several clusters, `null` if no station has a network.
    """

    stations: int
    stations_of_few_rows: int
    least_rows: int
    clusters: int
    clusters_equal: Number
    clusters_by: str
    networks_of_several: int | None = None
    rmse: StationScore
    ubrmse: StationScore
    bias: StationScore
    r: StationScore


class Comparison(Entry):
    """Paired test between two models, see `smgeo.evaluation.scores.compare_pair`; `p_adjusted` after Holm."""

    first: str
    second: str
    n: int
    stations: int
    clusters: int | None = None
    clusters_unequal: int | None = None
    rmse_first: float
    rmse_second: float
    difference: float
    interval: Interval
    stations_first_better: int
    stations_second_better: int
    p_value: Number
    effect: Number
    p_adjusted: Number


class GroupScores(PooledScores):
    """Scores at the test stations of one group."""

    group: str
    stations: int


class ThreeR2(Entry):
    """Three values of R², see `smgeo.evaluation.cross_validation.score_folds`."""

    r2_mean_of_folds: Number
    r2_pooled: Number
    r2_station_means: Number


class NearestDistances(Entry):
    """How well kNNDM folds match the map's pixels, see `smgeo.evaluation.cross_validation.Distances`."""

    w: float
    space: Literal["geographic", "feature"]
    unit: str
    clusters: int | None
    features: list[str] | None
    median_predicted: float
    median_left_out: float
    median_held_out: float


class CrossValidation(ThreeR2):
    """Scores of one cross-validation.

    `knndm` exists for folds of that method, and `gap_days` for those that hold out periods. `selected` has the features of each fold if features were
    selected in the folds. `scores`, `intervals` and `over_stations` are those that a part of a split has, over the held-out rows of all folds.
    """

    method: str
    folds: int
    gap_days: int | None = None
    knndm: NearestDistances | None = None
    selected: list[list[str]] | None = None
    rmse_pooled: Number
    n: int
    stations: int
    r2_of_folds: list[Number]
    scores: PartScores | None = None
    intervals: ScoreIntervals | None = None
    over_stations: StationScores | None = None


class RepeatedRun(PooledScores):
    """Scores at the test stations of one split (its seed) with one seed of training; `_mean` is over stations."""

    split: int
    seed: int
    stations: int
    rmse_mean: Number
    ubrmse_mean: Number
    bias_mean: Number
    r_mean: Number


class RepeatedScore(Entry):
    """Mean of a score over splits and seeds, and its standard deviations by split and by training."""

    mean: Number
    sd: Number
    split_sd: Number
    training_sd: Number


class Repeats(Entry):
    """Scores of one model on several splits and with several seeds of training, see `smgeo.evaluation.repeats`."""

    runs: list[RepeatedRun]
    scores: dict[str, RepeatedScore]


class LeakageSplit(PooledScores, ThreeR2):
    """Scores with rows held out in one of three ways, and distances to training, see `smgeo.evaluation.leakage.LeakageAudit`."""

    km_median: Number
    km_min: Number
    km_max: Number
    feature_median: Number
    feature_min: Number
    feature_max: Number
    feature_between_stations: Number


class LeakageAudit(Entry):
    """Scores of one quick model with rows, periods and locations held out, and what the difference means."""

    target: str
    units: str
    stations: int
    folds: int
    seed: int
    gap_days: int
    model: str
    features: list[str]
    splits: dict[str, LeakageSplit]
    meaning: str
    notes: list[str]


class Importance(Entry):
    """Increase of the RMSE when one feature (or a group) is exchanged between stations, with its 95 % interval."""

    feature: str
    increase: Number
    low: Number
    high: Number
    stations_worse: Number
    rows: int


class LearningCurvePoint(Entry):
    """Scores of a model trained on a fraction of the training stations; `low` and `high` bound the 95 % interval of `rmse`."""

    fraction: float
    stations: int
    rows: int
    train_rmse: Number
    rmse: Number
    low: Number
    high: Number
    n: int


class Coverage(Entry):
    """Share of observations inside the prediction intervals, over rows, as the mean over stations and over places (or groups), and the mean width.

    `covered_groups_interval` is the 95 % interval of that over places, over clusters; `places` is the number of places or groups.
    """

    covered: Number
    covered_stations: Number
    covered_groups: Number = None
    covered_groups_interval: Interval | None = None
    places: int | None = None
    width: Number
    stations: int
    rows: int


class GroupCoverage(Coverage):
    """Coverage at the test stations of one group."""

    group: str


class CalibratedOn(Entry):
    """Stations and rows that the intervals were learned from."""

    stations: int
    rows: int


class PredictionIntervals(Coverage):
    """Coverage of the prediction intervals of one model at the test stations, in total and by groups of stations."""

    level: float
    calibrated_on: CalibratedOn
    groups: dict[str, list[GroupCoverage]]


class Applicability(Entry):
    """Area of applicability of one model, and its errors inside and outside at the test stations."""

    threshold: float
    folds: int
    reference_rows: int
    weights: dict[str, float]
    rows: int
    share_inside: Number
    rmse_inside: Number
    rmse_outside: Number
    rmse_expected: Number = None
    index_median: Number


class MapTruth(PooledScores):
    """Scores of a map against the known truth of the built-in world, over `n` pixel-days of `pixels` pixels."""

    pixels: int


class MapSummary(Entry):
    """Days of a map, its share of pixels without a value, and its scores where the truth is known."""

    dates: list[str]
    nodata_share: float
    truth: MapTruth | None = None


class Trial(Entry):
    """One trial of a search."""

    trial: int
    status: str
    epochs: int | None = None
    params: dict[str, JsonValue]
    validation_rmse: Number


class Search(Entry):
    """All trials of a search, and the number of the best one."""

    best: int
    trials: list[Trial]


class StationGroups(Entry):
    """Stations that are held out together: the arguments of `smgeo.group_stations`, and the `number` of groups of the split's stations.

    `km` is the size of clusters.
    """

    by: str
    same_place_m: float
    buffer_km: float
    km: float | None = None
    number: int

    @property
    def text(self) -> str:
        """Description of a group for readers."""
        own = {
            "place": f"stations of a place, no farther apart than {self.same_place_m:g} m",
            "station": "each station for itself, whatever is beside it",
            "clusters": f"places in clusters, no farther apart than {self.km:g} km"
            if self.km is not None
            else "clusters",
        }
        return own.get(self.by, f"stations of the same {self.by}")


class SplitParts(Entry):
    """Station ids of each part.

    `forced` names the stations that are in training because of an extreme value. `periods` has the first and the last day of each part if the
    split is in time; otherwise `in_buffer` names the stations in no part because they are too near to a held-out one, and `groups` says
    what was held out together.
    """

    train: list[str]
    validation: list[str]
    test: list[str]
    forced: dict[str, list[str]] = Field(default_factory=dict)
    forced_share: float = 0.0
    periods: dict[Part, _Days] | None = None
    in_buffer: list[str] = Field(default_factory=list)
    groups: StationGroups | None = None

    def to_split(self) -> Split:
        """Return the split that these parts describe."""
        return Split.from_dict(self.model_dump(exclude_none=True))


class StationDistances(Entry):
    """Distances (km) from held-out stations to the nearest training station, over `stations` whose place is known.

    `within_1_km` and `within_100_m` are nearer than that; `shared_pixels` counts by static variable those that share a pixel with a training station.
    """

    stations: int
    km_min: float
    km_median: float
    km_max: float
    within_1_km: int
    within_100_m: int
    shared_pixels: dict[str, int]


class MapDistances(Entry):
    """Distances (km) from a sample of `pixels` of the grid cube to the nearest training station."""

    pixels: int
    km_median: float
    km_max: float


class Distances(Entry):
    """Distances of a split by stations to the nearest training station, and what they say against the scores (empty text if nothing)."""

    validation: StationDistances | None = None
    test: StationDistances | None = None
    map: MapDistances | None = None
    warning: str


class RowStep(Entry):
    """Rows left after one step, and rows that it removed; None if the step does not count them."""

    step: str
    stations: int | None
    rows: int | None
    removed: int


class Threshold(Entry):
    """Validation score with outliers dropped above `z`; `z` is None without dropping."""

    z: Number
    rows_dropped: int
    validation_rmse: float
    standard_error: float


class Outliers(Entry):
    """Threshold of outliers, rows dropped, and rows on which each variable was flagged; `thresholds` if smgeo chose it."""

    z: float
    per_station: bool
    rows: int
    by_variable: dict[str, int]
    thresholds: list[Threshold] | None = None


class Training(Entry):
    """Training rows of a model, days of its window, and training stations without a usable row."""

    rows: int
    window_days: int
    workers: int | None = None
    outlier_rows: int
    left_out: list[str]


class GridDays(Entry):
    """First and last day of the grid cube, and the number of its days."""

    first: str
    last: str
    count: int


class Variable(Entry):
    """Unit, kind and source of a variable of a cube, its values in numbers, and how many its sources made missing, by reason."""

    kind: str
    units: str
    source: str = ""
    minimum: Number = None
    median: Number = None
    maximum: Number = None
    valid_share: Number = None
    dropped: dict[str, int] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


class GridVariable(Variable):
    """A variable of the grid cube: also its days with a value, and the share of masked values."""

    days: int | None = None
    first_day: str | None = None
    last_day: str | None = None
    masked_share: float | None = None


class Outline(Entry):
    """Outline of the report: its copy in the run's folder, the file in the data folder, and the pixels inside."""

    file: str
    source: str
    pixels: int


class Colours(Entry):
    """Variables shown as red, green and blue, and the days shown."""

    variables: Annotated[tuple[str, str, str], Field(strict=False)]
    dates: list[str]


class DailyMeans(Entry):
    """Daily means of one variable over the outline or the grid, and the number of pixels in each."""

    units: str
    days: list[str]
    mean: list[float]
    pixels: list[int]


class Grid(Entry):
    """Contents of the grid cube, and what the report shows of it."""

    crs: str
    shape: Annotated[tuple[int, int], Field(strict=False)]
    resolution: _Pair
    bounds: Annotated[tuple[float, float, float, float], Field(strict=False)]
    days: GridDays
    variables: dict[str, GridVariable]
    outline: Outline | None = None
    rgb: Colours | None = None
    series: dict[str, DailyMeans] | None = None


class Results(Entry):
    """Content of `results.json`.

    A study without models has an empty `models`. With stations it then has `stations` and `rows`; with a grid only, `grid`.
    """

    schema_version: int = 0
    name: str
    target: Target | None = None
    models: dict[str, dict[Part, PartScores]]
    intervals: dict[str, dict[Part, ScoreIntervals]] = Field(default_factory=dict)
    over_stations: dict[str, dict[Part, StationScores]] = Field(default_factory=dict)
    comparisons: list[Comparison] = Field(default_factory=list)
    baselines: dict[str, dict[Part, PartScores]] = Field(default_factory=dict)
    against_baseline: list[Comparison] = Field(default_factory=list)
    groups: dict[str, dict[str, list[GroupScores]]] = Field(default_factory=dict)
    cross_validation: dict[str, CrossValidation] = Field(default_factory=dict)
    repeats: dict[str, Repeats] = Field(default_factory=dict)
    leakage_audit: LeakageAudit | None = None
    importance: dict[str, list[Importance]] = Field(default_factory=dict)
    learning_curve: dict[str, list[LearningCurvePoint]] = Field(default_factory=dict)
    prediction_intervals: dict[str, PredictionIntervals] = Field(default_factory=dict)
    applicability: dict[str, Applicability] = Field(default_factory=dict)
    maps: dict[str, MapSummary] = Field(default_factory=dict)
    search: dict[str, Search] = Field(default_factory=dict)
    split: SplitParts | None = None
    distances: Distances | None = None
    stations: list[str] | None = None
    rows: list[RowStep] | None = None
    outliers: Outliers | None = None
    left_out: dict[str, str] = Field(default_factory=dict)
    training: dict[str, Training] = Field(default_factory=dict)
    failed: dict[str, str] = Field(default_factory=dict)
    features: dict[str, Variable] = Field(default_factory=dict)
    grid: Grid | None = None

    @property
    def units(self) -> str:
        """Unit of the target; empty without one."""
        return self.target.units if self.target else ""


class Stage(Entry):
    """Key of a stage's inputs, and the time and peak memory of the process that ran it."""

    key: str
    seconds: float | None = None
    peak_memory_bytes: int | None = None


class Provenance(Entry):
    """Content of `provenance.json`: versions, seed, SHA-256 of each input file, stages."""

    recipe: str
    seed: int
    versions: dict[str, str]
    platform: str
    inputs: dict[str, str]
    stages: dict[str, Stage]


def parse_results(values: Mapping[str, object], where: str = "results.json") -> Results:
    """Check the content of a `results.json`.

    Parameters
    ----------
    values : mapping
        As `json.load` returns it.
    where : str
        Name for messages, such as the file's path.

    Raises
    ------
    SmgeoError
        If a later version of smgeo wrote it, or a key is unknown, missing or of the wrong type. The message names `where`, the key and the fault.
    """
    version = values.get("schema_version", 0)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise SmgeoError(
            f"{where}: schema_version is {version}, and this smgeo reads up to {SCHEMA_VERSION}; install a later version of smgeo"
        )
    return parse_spec(Results, values, where)


def check_results(values: Mapping[str, object]) -> JsonObject:
    """Return the results of a run as they are written: `schema_version` first, then `values`, checked against the schema.

    Raises
    ------
    SmgeoError
        If they do not fit the schema.
    """
    out = {"schema_version": SCHEMA_VERSION, **values}
    parse_results(out)
    return out


def read_results(path: str | Path) -> Results:
    """Read the results of a run.

    Parameters
    ----------
    path : str or Path
        Folder of a finished run, or its `results.json`.

    Raises
    ------
    SmgeoError
        If there is no such file, it is not JSON, or it does not fit the schema.
    """
    values, file = _load(Path(path), "results.json")
    return parse_results(values, str(file))


def read_provenance(path: str | Path) -> Provenance:
    """Read the provenance of a run; `path` is its folder or its `provenance.json`. Errors as in `read_results`."""
    values, file = _load(Path(path), "provenance.json")
    return parse_spec(Provenance, values, str(file))


def _load(path: Path, name: str) -> tuple[JsonObject, Path]:
    file = path / name if path.suffix != ".json" or path.is_dir() else path
    try:
        return load_json(file, "run the recipe again to rewrite it", finite=False), file
    except (FileNotFoundError, NotADirectoryError):
        raise SmgeoError(f"{path} is not a finished run (no {name}); run its recipe first") from None
