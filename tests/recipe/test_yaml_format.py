"""Recipes that smgeo writes are read as equal recipes, whatever their keys contain; and what YAML text means in a recipe."""

from __future__ import annotations

import datetime as dt
import math
import types
import typing

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from smgeo.catalog import EARTHENGINE
from smgeo.errors import SmgeoError
from smgeo.recipe.fields import RecipeFields
from smgeo.recipe.rasters import EarthEngineSource, GriddedSource, MaskSpec, RasterSource, StacSource
from smgeo.recipe.spec import Spec, parse_spec
from smgeo.recipe.stations import AnySource, TableSource
from smgeo.recipe.study import dump_recipe, find_recipe, parse_recipe, read_recipe
from smgeo.recipe.yaml_format import dump_yaml, load_yaml

WORDS = [
    *("NO", "no", "on", "Off", "y", "true", "null", "Null", "~", "", " ", "=", "<<", "-", "?", "!", "&a", "*a", "%", "@", "`", "|", ">"),
    *("0123", "007", "1e5", "1E5", "1.5e-7", ".5", "1_000", "0x1F", "0b1", "12:30", "12:30:00", "1:2.5", ".inf", "-.inf", ".nan", "NaN", "-9999"),
    *("2020-01-01", "2020-1-1", "2020-02-31", "2020-01-01 12:00:00", "2001-12-14t21:59:43.10-05:00", "%Y-%m-%d.tif", "s1_%Y%m%d.tif"),
    *("C:\\data\\a.tif", "a: b", "a #b", "#b", "[a]", "{a: b}", "'", '"', "it's", "a,b", "- a", "x:",
    ":x", "s3://b/k?sig=a%2Fb&c=d#e", "{band}_{step}.tif"),
    *("two\nlines", "\n", "a\n", "\na", " a", "a ", "a\n b", "tab\t", "\r\n", "a\x85b", "a\u2028b", "\ufeff", "\x00", "ü", "土壌", "🌱"),
    *("\ud800", "a" * 200),
    " ".join(["many words"] * 30),
]  # fmt: skip
TEXT = st.sampled_from(WORDS) | st.text(max_size=12)
DAYS = st.dates(dt.date(1900, 1, 1), dt.date(2200, 12, 31)) | st.just(dt.date(2020, 1, 1))
WHOLE = st.integers(-3, 40) | st.integers()
NUMBERS = (
    st.floats()
    | st.sampled_from([0.0, -0.0, 5e-324, 1e-7, 0.1, 1e16, 1e22, -9999.0, math.inf, math.nan])
    | WHOLE.map(float)
)
PLAIN = st.none() | st.booleans() | WHOLE | NUMBERS | TEXT | DAYS
ANY = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(TEXT | WHOLE | st.booleans() | st.none() | DAYS, inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(["NO", "on", "null", "a", "b-1", "rf"])

# Keys that only a few values suit, so that drawing any would rarely give a valid source.
CHOSEN: dict[tuple[type[Spec], str], st.SearchStrategy[object]] = {
    (RecipeFields, "name"): NAMES,
    (RecipeFields, "models"): st.dictionaries(
        NAMES, st.fixed_dictionaries({"kind": TEXT, "params": st.dictionaries(TEXT, ANY, max_size=3)}), max_size=2
    ),
    (EarthEngineSource, "bands"): st.dictionaries(TEXT, st.sampled_from(sorted(EARTHENGINE)), min_size=1, max_size=2),
    (EarthEngineSource, "orbit"): st.sampled_from(["ascending", "descending"]),
    (StacSource, "collections"): st.lists(TEXT, min_size=1, max_size=2),
    (MaskSpec, "rule"): st.none(),
    (MaskSpec, "bits"): st.lists(WHOLE, min_size=1, max_size=2),
    **{(kind, "units"): st.just({}) for kind in (RasterSource, StacSource)},
    **{(kind, "convert"): st.just({}) for kind in (RasterSource, StacSource)},
}


def values_of(kind: object, constraints: tuple[object, ...] = ()) -> st.SearchStrategy[object]:
    """Values of a type of a key, most of them valid."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return values_of(inside[0], inside[1:])
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values_of(one) for one in inside])
    if origin is typing.Literal:
        return st.sampled_from(inside)
    if origin is tuple:
        least = 1 if any(getattr(c, "min_length", 0) or "min_length" in str(c) for c in constraints) else 0
        if inside[-1] is Ellipsis:
            return st.lists(values_of(inside[0]), min_size=least, max_size=3).map(tuple)
        return st.tuples(*map(values_of, inside)) | st.tuples(*map(values_of, inside)).map(_in_order)
    if origin is dict:
        return st.dictionaries(values_of(inside[0]), values_of(inside[1]), min_size=1, max_size=3)
    if isinstance(kind, type) and issubclass(kind, Spec):
        return specs_of(kind)
    plain = {
        str: TEXT,
        bool: st.booleans(),
        int: WHOLE,
        float: NUMBERS | st.floats(0, 1),
        dt.date: DAYS,
        type(None): st.none(),
        typing.Any: ANY,
        object: ANY,
    }
    return plain[kind]  # type: ignore[index]


def _in_order(values: tuple[typing.Any, ...]) -> tuple[typing.Any, ...]:
    try:
        return tuple(sorted(values))
    except TypeError:
        return values


def specs_of(kind: type[Spec]) -> st.SearchStrategy[Spec]:
    """Valid specs with any of their keys."""
    needed, others = {}, {}
    for name, field in kind.model_fields.items():
        drawn = CHOSEN[kind, name] if (kind, name) in CHOSEN else values_of(field.annotation, tuple(field.metadata))
        (needed if field.is_required() or (kind, name) in CHOSEN else others)[name] = drawn

    def build(values: dict[str, object]) -> Spec | None:
        if issubclass(kind, RasterSource | GriddedSource | StacSource):
            for key in ("scale", "offset"):  # only of bands
                given = values.get(key)
                values = {
                    **values,
                    **({key: dict(zip(values["bands"], given.values(), strict=False))} if given else {}),
                }
        if kind is TableSource:
            values = {**values, "columns": {**values["columns"], "station": "id", "time": "12:30"}}
        try:
            return kind.model_validate(values)
        except (ValidationError, UnicodeError):  # pydantic cannot name half of a character
            return None

    return st.fixed_dictionaries(needed, optional=others).map(build).filter(lambda spec: spec is not None)


def equal(a: object, b: object) -> bool:
    """Compare values with their types; NaN equals NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Spec):
        return equal(dict(a), dict(b))
    if isinstance(a, dict):
        return list(a) == list(b) and list(map(type, a)) == list(map(type, b)) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b or (a != a and b != b)


def specs_in(kind: object) -> set[type[Spec]]:
    """The specs that a type is made of, and those in their keys."""
    if isinstance(kind, type) and issubclass(kind, Spec):
        return {kind}.union(*(specs_in(field.annotation) for field in kind.model_fields.values()))
    return set[type[Spec]]().union(*map(specs_in, typing.get_args(kind)))


RASTERS = (RasterSource, GriddedSource, EarthEngineSource, StacSource)
KINDS = sorted(specs_in(RecipeFields) - {RecipeFields}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_part_that_is_written_is_read_as_it_was(kind):
    @given(specs_of(kind))
    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    def check(spec):
        text = dump_yaml(spec.model_dump())
        again = parse_spec(kind, load_yaml(text), "again")
        assert equal(again, spec)
        assert dump_yaml(again.model_dump()) == text

    check()


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_whole_recipe_that_is_written_is_read_as_it_was(data):
    values = {
        "name": data.draw(NAMES),
        "features": data.draw(st.lists(TEXT, max_size=3)),
        "stations": data.draw(st.lists(values_of(AnySource), min_size=1, max_size=2)),
        "rasters": data.draw(st.lists(st.one_of(map(specs_of, RASTERS)), max_size=2)),
        "models": data.draw(CHOSEN[RecipeFields, "models"]),
    }  # fmt: skip
    recipe = RecipeFields.model_validate(values)
    again = parse_spec(RecipeFields, load_yaml(dump_recipe(recipe)), "again")
    assert equal(again, recipe)


@given(ANY)
@settings(max_examples=300, deadline=None)
def test_any_value_that_is_written_is_read_as_it_was(value):
    def as_lists(inner):
        if isinstance(inner, dict):
            return {k: as_lists(v) for k, v in inner.items()}
        return [as_lists(v) for v in inner] if isinstance(inner, list | tuple) else inner

    assert equal(load_yaml(dump_yaml({"a": value})), {"a": as_lists(value)})


@given(TEXT)
@settings(max_examples=200, deadline=None)
def test_text_that_is_written_is_text_for_other_readers_of_yaml(text):
    assert yaml.safe_load(dump_yaml([text, {text: text}])) == [text, {text: text}]


GRID = {
    "name": "NO",
    "period": [dt.date(2020, 1, 1), dt.date(2020, 1, 2)],
    "grid": {"crs": "EPSG:4326", "resolution": 0.1, "bounds": [8, 50, 8.3, 50.3]},
    "features": ["temperature"],
}


@pytest.mark.parametrize("kind", ["geotiff", "netcdf", "zarr", "csv_grid"])
@pytest.mark.parametrize("dates", ["2020-01-01", dt.date(2020, 1, 1)])
def test_one_date_of_a_file_is_a_date_in_quotes_or_not(kind, dates, tmp_path):
    source = {"kind": kind, "path": "t.nc", "dates": dates, "bands": {"temperature": "t"}}
    recipe = parse_recipe({**GRID, "rasters": [source]})
    assert recipe.rasters[0].dates == dt.date(2020, 1, 1)
    for text in (dump_recipe(recipe), dump_recipe(recipe).replace("dates: 2020-01-01", "dates: '2020-01-01'")):
        (tmp_path / "again.yaml").write_text(text, encoding="utf-8")
        assert read_recipe(tmp_path / "again.yaml") == recipe


def test_values_of_python_are_those_that_yaml_would_give(tmp_path):
    rasters = [{"kind": "netcdf", "path": "t.nc", "bands": {"temperature": "t"}}]
    table = {"kind": "csv", "path": "a.csv", "columns": {"station": "id", "time": "day", "sm": "sm"}}
    params = {"units": (64, np.int64(32)), "rate": np.float32(0.5), "first": tmp_path, "by_class": {1: np.arange(2)}}
    recipe = parse_recipe({**GRID, "stations": [table], "rasters": rasters, "models": {"ann": params}})
    expected = {"units": [64, 32], "rate": 0.5, "first": str(tmp_path), "by_class": {1: [0, 1]}}
    assert equal(recipe.models["ann"].params, expected)
    assert parse_recipe(load_yaml(dump_recipe(recipe))) == recipe
    with pytest.raises(
        SmgeoError, match=r"models\.ann\.activation: a recipe contains numbers, text, .*; got a function"
    ):
        parse_recipe({**GRID, "stations": [table], "rasters": rasters, "models": {"ann": {"activation": dump_yaml}}})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0123", "0123"),
        ("-007", "-007"),
        ("12:30", "12:30"),
        ("12:30:00.5", "12:30:00.5"),
        ("0", 0),
        ("-12", -12),
        ("1_000", 1000),
        ("0x1F", 31),
        ("1e-3", 0.001),
        ("+1.5E4", 15000.0),
        ("0.25", 0.25),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("'1e5'", "1e5"),
        ("NO", False),
        ("'NO'", "NO"),
        ("2020-01-01", dt.date(2020, 1, 1)),
    ],
)
def test_numbers_ids_and_times_as_users_write_them(text, value):
    assert equal(load_yaml(f"a: {text}"), {"a": value})


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "it means more than 200,000 values"),
        ("a: &a [1, *a]", "a value contains itself"),
        ("[" * 100 + "]" * 100, "more than 50 levels deep"),
        ("[" * 100_000, "more than 50 levels deep"),
        ("- x\n" * 1_500_000, "characters, and at most 4,000,000 are read"),
        ("a: " + "9" * 10_000, "is no number"),
    ],
)
def test_yaml_has_limits(text, problem, tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(SmgeoError, match=problem):
        read_recipe(file)


def test_many_keys_and_long_numbers_are_read_in_linear_time():
    keys = "".join(f"k{i}: {i}\n" for i in range(50_000))
    assert load_yaml(keys)["k49999"] == 49_999
    assert load_yaml("a: " + "1_" * 200_000 + "x")["a"].endswith("x")


@pytest.mark.parametrize(
    "values",
    [
        {"seed": -1},
        {"seed": 2**32},
        {"period": ["0001-01-01", "2020-01-01"]},
        {"period": ["2020-01-01", "9999-01-01"]},
        {"prepare": {"outliers": {"z": float("inf")}}},
        {"prepare": {"outliers": {"z": float("nan")}}},
        {"prepare": {"window": {"length": 10**9}}},
        {"prepare": {"fill": {"limit": -1}}},
        {"prepare": {"fill": {"limit": 10**9}}},
        {"target": {"depth_m": [0, float("inf")]}},
        {"world": {"stations": 10**9}},
        {"world": {"days": 0}},
        {"world": {"shape": [10**6, 10**6]}},
        {"grid": {"crs": "EPSG:4326", "resolution": 1e-6, "bounds": [0, 0, 10, 10]}},
        {"importance": {"repeats": 10**9}},
        {"intervals": {"level": float("nan")}},
        {"models": {"rf": {"trees": 10**9}}},
        {"models": {"ann": {"units": 10**9}}},
        {"models": {"ann": {"learning_rate": float("inf")}}},
        {"models": {"ann": {"dropout": float("nan")}}},
        {"search": {"rf": {"trials": 10**9}}},
    ],
)
def test_numbers_have_bounds(values):
    recipe = yaml.safe_load(find_recipe("quickstart").read_text())
    assert parse_recipe(recipe)
    merged = {
        k: {**recipe[k], **v} if isinstance(recipe.get(k), dict) and k != "models" else v for k, v in values.items()
    }
    with pytest.raises(SmgeoError, match=next(iter(values))):
        parse_recipe({**recipe, **merged})
