"""Specs of station sources: the files of each kind and how they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator

from smgeo.errors import SmgeoError, nearest
from smgeo.recipe.spec import AnyNumber, Spec, known_kind, parse_spec
from smgeo.recipe.station_source import FilePath, StationSource
from smgeo.recipe.tables import TableSource


class SensorSource(StationSource):
    """Keys of archives with several sensors at a station."""

    variables: tuple[str, ...] = ()
    min_valid_share: float = Field(0.5, ge=0, le=1)
    depth_rule: Literal["nearest", "mean"] = "nearest"
    nearest_to_m: float | None = Field(None, ge=0)

    def gives(self, target: str) -> set[str]:
        """Return the names of the variables that the source gives."""
        return {target, *self.variables}


class IsmnSource(SensorSource):
    """ISMN archive, zip or folder, in any of its three formats.

    Attributes
    ----------
    path : str
        Zip file as downloaded, or its unpacked folder.
    flags : tuple of str
        ISMN quality flags that count as valid (https://ismn.bafg.de/en/data/ismn-quality-flags): G, C01 to C03, D01 to D10, M;
        U (unchecked) in old archives and in CEOP files. Compared whole. An hour with several flags (`D01,D03`) needs all of
        them to be among these.
    variables : tuple of str
        Variables besides the target: `soil_temperature`, `precipitation`, `sand`, `silt`, `clay`, `elevation`.
    min_valid_share : float
        Share of a day's 24 hours that must be valid for the day to have a value.
    networks : tuple of str, optional
        Only these networks.
    depth_rule : {"nearest", "mean"}
        Of a station's sensors in the range of depths: those at the depth whose middle is nearest to `nearest_to_m` (the
        shallower of two equally near), or the mean of all. Sensors at one depth, side by side or one after the other, are
        averaged on the days when they overlap (counted in `days_overlapping`), before depths are averaged.
    nearest_to_m : float, optional
        Depth for the rule `nearest`, m; the middle of the range by default.
    """

    kind: Literal["ismn"]
    flags: tuple[str, ...] = ("G",)
    networks: tuple[str, ...] | None = None


class TerenoColumn(Spec):
    """One column of a TERENO export.

    Attributes
    ----------
    variable : {"sm", "soil_temperature"}
    depth_m : float or (float, float)
        Depth, or its upper and lower end, m below the surface.
    units : str, optional
        Unit of the column, if its name does not contain it.
    flag : str or tuple of str, optional
        Column of quality flags, or several that must all be valid.
    sensor : str, optional
        Name of the sensor; the column's name by default.
    """

    variable: Literal["sm", "soil_temperature"]
    depth_m: float | tuple[float, float]
    units: str | None = None
    flag: str | tuple[str, ...] | None = None
    sensor: str | None = None

    @property
    def depth(self) -> tuple[float, float]:
        """Upper and lower end, m below the surface."""
        return self.depth_m if isinstance(self.depth_m, tuple) else (self.depth_m, self.depth_m)

    @property
    def flag_columns(self) -> tuple[str, ...]:
        """Names of the columns of flags."""
        return (self.flag,) if isinstance(self.flag, str) else self.flag or ()


class TerenoSource(SensorSource):
    """Text exports of the TERENO data portal.

    Attributes
    ----------
    path : str
        A file, a folder or a zip of exports (.csv, .txt), each of one station. Several files of one station become one series.
    flags : tuple of str
        Quality flags that count as valid: a whole flag, or its generic part (`ok` of `ok: ok`), in any case.
        `G` stands for `ok`. A row without a flag is not valid if its column has flags.
    variables, min_valid_share, depth_rule, nearest_to_m
        As in `IsmnSource`; variables are `sm` and `soil_temperature`.
    columns : dict of str to TerenoColumn, optional
        Columns to read, by name (with or without the unit). By default, columns are recognised by
        their names, such as `SoilWaterContent_0.05mSensor1 in [%]`.
    stations : str, optional
        CSV of station, latitude, longitude and, if known, station_elevation; needed if files do not contain their position.
        Stations are named as in the files' metadata, or as the files.
    network : str
        Ids are `NETWORK/STATION`.
    time_column, separator : str, optional
        Taken from the line of column names by default: timestamp, time, date, datetime or datetime_utc; `;`, `,` or a tab.
    time_format : str
        Format for `pandas.to_datetime`.
    utc_offset_hours : float
        Offset from UTC of times without one: 1 for Central European Time. Times are converted to UTC before days are made.
    missing : tuple of str
        Words for a missing value.
    """

    kind: Literal["tereno"]
    flags: tuple[str, ...] = ("ok",)
    columns: dict[str, TerenoColumn] | None = None
    stations: FilePath | None = None
    network: str = "TERENO"
    time_column: str | None = None
    time_format: str = "ISO8601"
    utc_offset_hours: float = Field(0.0, ge=-14, le=14)
    separator: str | None = None
    missing: tuple[str, ...] = ("noData", "NaN", "-9999")


class MatrixFile(Spec):
    """File of a matrix, named without `.csv`: value = number * scale + offset, in the catalogue's unit."""

    file: str
    scale: float = 1.0
    offset: float = 0.0


class MatrixSource(StationSource):
    """A folder of matrices, cells by days, with one folder a year.

    Attributes
    ----------
    path : str
        Folder that contains the years' folders and `coordinates`.
    variables : dict of str to MatrixFile
        File of each variable (or only its name); the target is among them.
    static : dict of str to MatrixFile
        The same for variables that do not vary in time, in `static_folder`.
    years : tuple, optional
        Names of the folders; by default all that contain a table of days.
    missing : float
        Number that stands for a missing value.
    network : str
        Ids are `NETWORK/cell_0001`, counted from 1 in the order of rows.
    coordinates : str
        File of latitude, longitude without a header, one row a cell.
    dates : tuple of str
        Names of the table of days in a year's folder; the first that exists is read.
    static_folder : str
        Folder of the variables that do not vary in time.
    """

    kind: Literal["matrix"]
    variables: dict[str, MatrixFile]
    static: dict[str, MatrixFile] = Field({})
    years: tuple[int | str, ...] | None = None
    missing: AnyNumber = -9999.0
    network: str = "CELLS"
    coordinates: str = "crd.csv"
    dates: tuple[str, ...] = ("timeStr.csv", "time.csv")
    static_folder: str = "const"

    @field_validator("variables", "static", mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return _expand(value, "file")

    def gives(self, target: str) -> set[str]:
        """Return the names of the variables that the source gives."""
        return {*self.variables, *self.static}


def _expand(value: object, key: str) -> object:
    """`{sm: SMAP}` means `{sm: {file: SMAP}}`."""
    return {k: {key: v} if isinstance(v, str) else v for k, v in value.items()} if isinstance(value, Mapping) else value


AnySource: TypeAlias = IsmnSource | TerenoSource | TableSource | MatrixSource
AnyStations = Annotated[
    AnySource, Field(discriminator="kind"), known_kind(IsmnSource, TerenoSource, TableSource, MatrixSource)
]

_KINDS: dict[str, type[AnySource]] = {
    "ismn": IsmnSource,
    "tereno": TerenoSource,
    "csv": TableSource,
    "matrix": MatrixSource,
}


def parse_stations(values: Mapping[str, object], where: str) -> AnySource:
    """Check the keys of a source of any kind; `kind` defaults to ismn.

    Raises
    ------
    SmgeoError
        If the kind is unknown; or listing the keys that are unknown, missing or wrong.
    """
    kind = str(values.get("kind", "ismn"))
    if kind not in _KINDS:
        raise SmgeoError(f"{where}: unknown kind of stations {kind!r}; {nearest(kind, list(_KINDS))}")
    spec = _KINDS[kind]
    faults = _unknown_keys(values, kind)
    known = {k: v for k, v in values.items() if k in spec.model_fields}
    try:
        source = parse_spec(spec, {"kind": kind, **known}, where)
    except SmgeoError as error:
        raise SmgeoError("; ".join([str(error), *faults])) from None
    if faults:
        raise SmgeoError(f"{where}: {'; '.join(faults)}")
    return source


def _unknown_keys(values: Iterable[str], kind: str) -> list[str]:
    known = list(_KINDS[kind].model_fields)
    of_others = {key: [k for k, spec in _KINDS.items() if key in spec.model_fields] for key in values}
    return [
        f"{key!r} applies to kind {' and '.join(others)}, not to {kind}; leave it out"
        if others
        else f"unknown key {key!r}; {nearest(key, known)}"
        for key, others in of_others.items()
        if key not in known
    ]
