"""The script of preparation against pandas on the same stations, and the code of its page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import smgeo

pytest.importorskip("ismn")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "preparation.md"
ARCHIVE = "ismn/ISMN_DWD_SMOSMANIA_20240825_20250825.zip"
PICTURES = {f"preparation_{n}.png" for n in ("gaps", "split", "outliers", "scaling", "windows", "sequences")}


@pytest.fixture(scope="module")
def printed(data, tmp_path_factory):
    """What the script prints, and the folder of its pictures."""
    pictures = tmp_path_factory.mktemp("pictures")
    command = [sys.executable, ROOT / "recipes" / "preparation.py", data, "--pictures", pictures]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout, pictures


@pytest.fixture(scope="module")
def tables(data):
    """Soil moisture and soil temperature, days × stations."""
    ds = smgeo.open_stations(data / ARCHIVE, depth_m=(0.0, 0.10), variables=["soil_temperature"])
    return tuple(ds[n].transpose("time", "station").to_pandas() for n in ("sm", "soil_temperature"))


def rows_of(text: str) -> dict[str, list[int]]:
    """Step -> train, validation, test, removed."""
    return {
        name: [int(v) for v in numbers.split()]
        for name, numbers in re.findall(r"^(\w.*?)((?: +-?\d+){4})$", text.split("Rows left after each step")[1], re.M)
    }


def test_days_filled_are_those_of_pandas(printed, tables):
    moved = tables[1].interpolate(method="linear", limit=3, limit_direction="both")
    expected = int(moved.notna().sum().sum() - tables[1].notna().sum().sum())
    assert expected > 0
    assert f"'half-revisit': 0, '3 days': {expected}," in printed[0]


def test_rows_left_are_those_of_pandas(printed, tables):
    moisture, temperature = (t.astype("float64") for t in tables)
    rows = rows_of(printed[0])
    parts = [_stations(printed[0], part) for part in ("train", "validation", "test")]
    assert sorted(s for part in parts for s in part) == sorted(moisture)

    def count(row):
        return [int(row[part].sum().sum()) for part in parts]

    observed, filled = moisture.notna(), temperature.interpolate(method="linear", limit=3, limit_direction="both")
    assert rows["days of the cube"][:3] == [358 * len(part) for part in parts]
    assert rows["with soil moisture"][:3] == count(observed)
    outlier = ((moisture - moisture.mean()).abs() > 3 * moisture.std(ddof=0)) | (
        (filled - filled.mean()).abs() > 3 * filled.std(ddof=0)
    )
    outlier[[*parts[1], *parts[2]]] = False  # of a validation or test station nothing is dropped
    assert outlier.any().any()
    kept = observed & ~outlier
    assert rows["without outliers"][:3] == count(kept)
    # One feature of seven can be missing, so never half of a window.
    assert rows["windows, half may be missing"][:3] == rows["past the first 29 days"][:3] == count(kept.iloc[29:])
    assert rows["windows, complete"][:3] == count(kept & (filled.notna().rolling(30).sum() == 30))
    totals = [sum(r[:3]) for r in rows.values()]
    assert [0, *(-np.diff(totals)).tolist()] == [r[3] for r in rows.values()]


def _stations(text: str, part: str) -> list[str]:
    """Ids of a part, as printed."""
    return re.search(rf"^{part}: (.*)$", text, re.M).group(1).split(", ")


def test_extremes_are_in_training(printed, tables):
    training = set(_stations(printed[0], "train"))
    for table in tables:
        assert {table.max().idxmax(), table.min().idxmin()} <= training


def test_pictures_are_small_and_all_on_the_page(printed):
    made = {p.name: p for p in printed[1].iterdir()}
    assert set(made) == PICTURES == set(re.findall(r"images/(preparation_\w+\.png)", PAGE.read_text(encoding="utf-8")))
    for name, path in made.items():
        assert path.stat().st_size < 120_000, name
        with Image.open(path) as picture:
            assert picture.width >= 800
        assert (ROOT / "docs" / "images" / name).is_file()


@pytest.mark.soak
def test_code_of_the_page_runs(data, tmp_path, monkeypatch, capsys):
    """Each line `print(...)  # text` prints this text."""
    pytest.importorskip("tensorflow")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert len(blocks) > 8
    names = {"DATA": data}
    for block in blocks:
        line = text[: text.index(block)].count("\n")
        exec(compile("\n" * line + block, str(PAGE), "exec"), names)
        said = re.findall(r"^print\(.*\)  # (.+)$", block, re.M)
        out = capsys.readouterr().out.splitlines()
        assert out == said
