"""Random tables, written field by field: what is opened equals the table's truth."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smgeo.sources import open_stations

ID = st.sampled_from(
    ["0044", "00044", "44", "NA", "nan", "null", "1e5", "100000", "007", "TRUE", "site A", "x-1", "Müller", "3.0"]
)
# Name of a form: how a local time is written, keys that it needs, and whether its offset is written with it.
FORMS = {
    "iso": (lambda t: f"{t:%Y-%m-%d %H:%M}", {}, False),
    "iso T": (lambda t: f"{t:%Y-%m-%dT%H:%M:%S}", {}, False),
    "compact": (lambda t: f"{t:%Y%m%d%H%M}", {}, False),
    "compact T": (lambda t: f"{t:%Y%m%dT%H%M}", {}, False),
    "slashes": (lambda t: f"{t.year}/{t.month}/{t.day} {t:%H:%M}", {}, False),
    "day first": (lambda t: f"{t:%d/%m/%Y %H:%M}", {"day_first": True}, False),
    "month first": (lambda t: f"{t.month}/{t.day}/{t.year} {t:%I:%M %p}", {"day_first": False}, False),
    "dots": (lambda t: f"{t:%d.%m.%Y %H:%M}", {"day_first": True}, False),
    "short": (lambda t: f"{t:%d.%m.%y %H:%M}", {"time_format": "%d.%m.%y %H:%M"}, False),
    "named": (lambda t: f"{t:%d %b %Y %H:%M}", {}, False),
    "24 h": (
        lambda t: f"{t - dt.timedelta(days=1):%Y-%m-%d} 24:00" if t.hour == t.minute == 0 else f"{t:%Y-%m-%d %H:%M}",
        {},
        False,
    ),
    "offset": (lambda t: f"{t:%Y-%m-%dT%H:%M}", {}, True),
}
# A separator, a decimal mark, and the keys that tell them; comma with comma needs quotes.
WRITTEN = [
    (",", ".", {}),
    (";", ",", {"decimal": ","}),
    ("\t", ".", {}),
    ("|", ",", {"decimal": ","}),
    (";", ".", {"separator": ";"}),
]


@st.composite
def tables(draw):
    separator, decimal, keys = draw(st.sampled_from(WRITTEN))
    write_time, more, zoned = FORMS[draw(st.sampled_from(sorted(FORMS)))]
    offset = draw(st.sampled_from([-7, 0, 1, 5.5, 12]))
    fill = draw(st.sampled_from(["", "NaN", "NA", "-9999", "-99", "n.a."]))
    options = {**keys, **more, "missing": [-9999, "-99", "n.a."]}
    suffix = ""
    if zoned:
        minutes = int(offset * 60)
        sign, size = ("-" if minutes < 0 else "+"), abs(minutes)
        suffix = f"{sign}{size // 60:02d}" + draw(st.sampled_from([f"{size % 60:02d}", f":{size % 60:02d}"]))
        options["utc_offset_hours"] = 3  # acts on no time that says its own
    else:
        options["utc_offset_hours"] = offset
    start = dt.datetime(2020, 2, 27) + dt.timedelta(hours=draw(st.integers(0, 23)))
    step = draw(st.sampled_from([60, 360, 1440]))
    rows, truth = [], {}
    for k, station in enumerate(draw(st.lists(ID, min_size=1, max_size=4, unique=True))):
        for i in range(draw(st.integers(1, 12))):
            local = start + dt.timedelta(minutes=step * i)
            number = draw(st.one_of(st.none(), st.integers(0, 1000)))
            word = fill if number is None else f"{number / 1000:.3f}".replace(".", decimal)
            rows.append([station, write_time(local) + suffix, f"{40 + k / 4}".replace(".", decimal), "8", word])
            if number is not None:
                day = (local - dt.timedelta(hours=offset)).date()
                truth.setdefault((station, day), []).append(number / 1000)
    header = ["id", "time", "lat", "lon", "vw"]
    above = []
    if draw(st.booleans()):
        options["skip_rows"] = 2
        above += [["logger", "firmware 3"], ["made in 2020"]]
    if draw(st.booleans()):
        options["comment"] = "#"
        above.append(["# a comment"])
        rows.insert(draw(st.integers(0, len(rows))), ["# another"])
    units = draw(st.booleans())
    if units:
        options["units_rows"] = 1
    body = [*above, header, *([["-", "local", "deg", "deg", "m3/m3"]] if units else []), *rows]
    encoding, bom = draw(st.sampled_from([("utf-8", b""), ("utf-8", b"\xef\xbb\xbf"), ("latin-1", b"")]))
    if encoding == "latin-1":
        options["encoding"] = encoding
    end = draw(st.sampled_from(["\n", "\r\n"]))
    data = bom + (end.join(separator.join(row) for row in body) + end).encode(encoding)
    return data, options, truth, sorted({row[0] for row in rows if len(row) > 1})


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "t.csv"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=tables())
def test_what_is_opened_is_what_was_written(table, case):
    data, options, truth, stations = case
    table.write_bytes(data)
    columns = {"station": "id", "time": "time", "latitude": "lat", "longitude": "lon", "sm": "vw"}
    ds = open_stations(table, "csv", columns=columns, **options).compute()
    assert ds["station"].values.tolist() == [f"TABLE/{s}" for s in stations]
    opened = {
        (str(s).removeprefix("TABLE/"), dt.date.fromisoformat(str(t)[:10])): float(v)
        for s, row in zip(ds["station"].values, ds["sm"].values, strict=True)
        for t, v in zip(ds["time"].values, row, strict=True)
        if np.isfinite(v)
    }
    assert opened.keys() == truth.keys()
    for key, values in truth.items():
        assert opened[key] == pytest.approx(sum(values) / len(values), abs=1e-6)
