"""Tables on their way into a cube: presets, groups and counts of dropped values survive a run and its recipe."""

from __future__ import annotations

import numpy as np
import yaml

import smgeo
from smgeo.cube.ledger import read_dropped


def test_a_run_of_a_preset_can_be_run_again_from_its_recipe(tmp_path):
    folder = tmp_path / "uscrn"
    folder.mkdir()
    for i, sensor in enumerate(("-99.000", "0.200", "0.300")):
        lines = []
        for day in range(1, 6):
            rain = 9999.0 if day == 2 else 1.0  # no rain on Earth
            surface = "-9999.0" if day == 3 else "12.5"
            start = (
                f"{100 + i:05d} 202001{day:02d} 2.622 {-100 - i}.5 {40 + i}.25 0 0 0 0 {rain} 0 C 0 0 {surface} 0 0 0"
            )
            lines.append(f"{start} {sensor} 0.1 0.1 0.1 0.1 5.0 5.0 5.0 5.0 5.0")
        (folder / f"CRND0103-2020-{100 + i:05d}.txt").write_text("\n".join(lines) + "\n")
    recipe = {
        "name": "net",
        "stations": [
            {
                "kind": "csv",
                "preset": "uscrn",
                "path": "uscrn/CRND*.txt",
                "columns": {"group": {"value": "plains"}, "soil_temperature": None},
            }
        ],
        "features": ["precipitation", "temperature"],
    }
    smgeo.run(recipe, out=tmp_path / "run", data=tmp_path)
    cube = smgeo.open_cube(tmp_path / "run" / "stations.zarr")
    assert cube["station"].values.tolist() == ["USCRN/00101", "USCRN/00102"]
    assert cube["group"].values.tolist() == ["plains", "plains"]
    assert read_dropped(tmp_path / "run" / "stations.zarr") == {"precipitation": {"outside the valid range": 2}}
    assert int(cube["temperature"].notnull().sum()) == 8
    written = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert "soil_temperature" not in written["stations"][0]["columns"]
    smgeo.run(tmp_path / "run" / "recipe.yaml", out=tmp_path / "again", data=tmp_path)
    again = smgeo.open_cube(tmp_path / "again" / "stations.zarr")
    np.testing.assert_array_equal(again["sm"].values, cube["sm"].values)
    assert (tmp_path / "again" / "recipe.yaml").read_text() == (tmp_path / "run" / "recipe.yaml").read_text()
