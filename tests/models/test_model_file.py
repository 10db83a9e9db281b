"""Model files contain only numbers, and estimate only from data with the same features in the same units."""

import hashlib
import io
import json
import pickle
import sys
import zipfile
from functools import partial
from operator import methodcaller
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import Ridge
from sklearn.preprocessing import FunctionTransformer

import smgeo
from smgeo.errors import SmgeoError
from smgeo.evaluation.parts import evaluate
from smgeo.models import load_model, make_model
from smgeo.prepare import Split, Windows

FEATURES = ["s1_vv", "clay"]


@pytest.fixture
def weights(tmp_path):
    """The weights of a saved regressor."""
    x = np.random.default_rng(0).random((40, 3))
    return make_model("Ridge").fit(x, x[:, 0]).save(tmp_path / "m") / "regressor.skops"


@pytest.fixture
def trees(tmp_path):
    """The trees of a saved forest."""
    x = np.random.default_rng(0).random((40, 3))
    return make_model("rf", trees=2, threads=1).fit(x, x[:, 0]).save(tmp_path / "m") / "trees.npz"


def _seal(folder: Path, **changes) -> Path:
    """Another `model.json`, with the checksums of someone who knows how they are made."""
    file = folder / "model.json"
    manifest = json.loads(file.read_text()) | changes
    manifest.pop("sha256")
    manifest["sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps(manifest))
    return folder


def _plant(weights: Path, content: bytes) -> Path:
    """Other weights in a model's folder."""
    weights.write_bytes(content)
    return _seal(weights.parent, files={weights.name: hashlib.sha256(content).hexdigest()})


def _parts(weights: Path, planted: object) -> dict:
    """Return the expected content of the file, with something else in the fitted estimator."""
    held = skops.io.load(weights, trusted=skops.io.get_untrusted_types(file=weights))
    return {name: planted if name == "fitted" else part for name, part in held.items()}


class Touch:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_the_same_content_planted_again_is_read(weights):
    load_model(_plant(weights, weights.read_bytes()))


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("of", ["weights", "trees"])
def test_a_pickle_is_refused_and_does_not_run(of, tmp_path, protocol, request):
    weights = request.getfixturevalue(of)
    mark = tmp_path / "ran"
    content = pickle.dumps(Touch(mark), protocol)
    pickle.loads(content)
    assert mark.exists()
    mark.unlink()
    with pytest.raises(SmgeoError, match=weights.name):
        load_model(_plant(weights, content))
    assert not mark.exists()


def test_a_pickle_inside_the_arrays_of_a_forest_does_not_run(trees, tmp_path):
    mark = tmp_path / "ran"
    with np.load(trees) as held:
        arrays = dict(held)
    arrays["value"] = np.array([Touch(mark)], dtype=object)
    content = io.BytesIO()
    np.savez(content, **arrays)
    mark.unlink(missing_ok=True)
    with pytest.raises(SmgeoError, match=r"trees\.npz contains no trees"):
        load_model(_plant(trees, content.getvalue()))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("planted", "name"),
    [
        (FunctionTransformer(eval), "builtins.eval"),
        (FunctionTransformer(np.save), "numpy.save"),
        (FunctionTransformer(partial(exec, "1")), "builtins.exec"),
        (FunctionTransformer(methodcaller("predict")), "operator.methodcaller"),
        (FunctionTransformer(Ridge().fit), r"Ridge\.fit"),
        (FunctionTransformer(Path.touch), "touch"),
        (Touch("x"), "Touch"),
    ],
)
def test_functions_and_types_of_others_are_refused_by_name(weights, planted, name):
    content = skops.io.dumps(_parts(weights, planted))
    with pytest.raises(SmgeoError, match=f"contains .*{name}.*nothing was loaded. Allowed are"):
        load_model(_plant(weights, content))


def test_a_module_that_a_file_names_is_not_imported(weights, tmp_path, monkeypatch):
    mark = tmp_path / "imported"
    (tmp_path / "planted_module.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Planted:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import planted_module

    content = skops.io.dumps(_parts(weights, planted_module.Planted()))
    assert mark.exists()
    mark.unlink()
    sys.modules.pop("planted_module")
    with pytest.raises(SmgeoError, match=r"planted_module\.Planted"):
        load_model(_plant(weights, content))
    assert not mark.exists()
    assert "planted_module" not in sys.modules


def _change_schema(content: bytes, change) -> bytes:
    """A skops file with another schema."""
    import io

    source, out = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name in source.namelist():
            held = source.read(name)
            made.writestr(name, json.dumps(change(json.loads(held))).encode() if name == "schema.json" else held)
    return out.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: skops.io.dumps([1, 2]),
        lambda content: skops.io.dumps({"other": Ridge()}),
        lambda content: _change_schema(content, lambda schema: []),
        lambda content: _change_schema(content, lambda schema: {}),
        lambda content: _change_schema(content, lambda schema: schema | {"__loader__": "NoNode"}),
        lambda content: _change_schema(content, lambda schema: schema | {"content": {}}),
        lambda content: _change_schema(content, lambda schema: schema | {"protocol": "x"}),
    ],
    ids=["empty", "half", "a list", "other names", "no schema", "nothing", "unknown loader", "no content", "protocol"],
)
def test_damaged_and_foreign_files_are_refused(weights, damage):
    with pytest.raises(SmgeoError, match=weights.name):
        load_model(_plant(weights, damage(weights.read_bytes())))


def test_weights_that_are_no_regressor_are_refused(tmp_path):
    x = np.random.default_rng(0).random((40, 3))
    weights = make_model("Ridge").fit(x, x[:, 0]).save(tmp_path / "m") / "regressor.skops"
    with pytest.raises(SmgeoError, match="needs a scikit-learn regressor"):
        load_model(_plant(weights, skops.io.dumps({"estimator": 3, "fitted": 4})))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "os.system"}, "unknown model 'os.system'"),
        ({"kind": "Ridge"}, "unknown model 'Ridge'"),
        ({"params": {"estimator": "x"}}, "has no parameter 'estimator'"),
        ({"params": ["seed"]}, "params is list"),
        ({"files": ["regressor.skops"]}, "files is list"),
        ({"input_shape": None}, "input_shape is NoneType"),
        ({"input_shape": ["x"]}, "input_shape must contain whole numbers"),
        ({"n_features": "x"}, "n_features is str"),
        ({"training": 3}, "training is int"),
    ],
)
def test_a_forged_manifest_is_refused(weights, changes, message):
    with pytest.raises(SmgeoError, match=message):
        load_model(_seal(weights.parent, **changes))


def test_a_file_from_before_modes_sees_windows(make_station_cube, tmp_path):
    ds = make_station_cube()
    folder = make_model("Ridge").fit(Windows(ds, FEATURES, length=3)).save(tmp_path / "m")
    kept = json.loads((folder / "model.json").read_text())["preparation"]
    assert kept.pop("mode") == "window"
    ids = tuple(str(s) for s in ds["station"].values)
    split = Split(ids[:1], ids[1:2], ids[2:])
    new, old = evaluate(load_model(folder), ds, split), evaluate(load_model(_seal(folder, preparation=kept)), ds, split)
    assert new.scores == old.scores
    assert new.scores["test"]["n"] > 0


# ---- used on other data


@pytest.fixture(params=["rf", "Ridge"])
def model(request, make_station_cube, tmp_path):
    if request.param == "rf":
        pytest.importorskip("ydf")
    made = make_model(request.param, **({"trees": 3} if request.param == "rf" else {}))
    made.fit(Windows(make_station_cube(), FEATURES, length=1))
    return load_model(made.save(tmp_path / "m"))


@pytest.fixture
def split(make_station_cube):
    return smgeo.split_stations(make_station_cube(), fractions=(0.6, 0.2, 0.2), extremes_to_train=False)


def _lacks(ds):
    return ds.drop_vars("clay")


def _other_unit(ds):
    return ds.assign(clay=(ds["clay"] / 100).assign_attrs(ds["clay"].attrs | {"units": "kg kg-1"}))


@pytest.mark.parametrize("change", [_lacks, _other_unit])
def test_cubes_without_a_feature_or_in_another_unit_are_refused_by_its_name(
    model, split, make_station_cube, make_grid_cube, tmp_path, change
):
    smgeo.evaluate(model, make_station_cube(), split)
    with pytest.raises(SmgeoError, match="clay"):
        smgeo.evaluate(model, change(make_station_cube()), split)
    with pytest.raises(SmgeoError, match="clay"):
        smgeo.predict_map(model, change(make_grid_cube()), tmp_path / "map.zarr")
    assert not (tmp_path / "map.zarr").exists()


def test_tables_bring_the_features_of_windows_by_name(model, make_station_cube):
    windows = Windows(make_station_cube(), FEATURES, length=1)
    x = windows.gather(np.arange(len(windows)))[:, 0]
    table = pd.DataFrame(x, columns=FEATURES)
    shuffled = table.assign(station="a")[["clay", "station", "s1_vv"]]
    np.testing.assert_array_equal(model.predict(shuffled), model.predict(windows))
    with pytest.raises(SmgeoError, match="the table X lacks clay; it has s1_vv"):
        model.predict(table[["s1_vv"]])
    table.attrs["units"] = dict(windows.units)
    np.testing.assert_array_equal(model.predict(table), model.predict(windows))
    table.attrs["units"] = windows.units | {"clay": "kg kg-1"}
    with pytest.raises(SmgeoError, match="clay is in 'kg kg-1', needed in"):
        model.predict(table)


def test_tables_bring_what_was_observed_too(make_station_cube):
    cube = make_station_cube(gaps=0.3)
    windows = Windows(cube, FEATURES, length=1, missing=0.5, fill=[-12, 25])
    model = make_model("Ridge").fit(windows)
    table = pd.DataFrame(windows.gather(np.arange(len(windows)))[:, 0], columns=windows.channels)
    np.testing.assert_array_equal(model.predict(table[table.columns[::-1]]), model.predict(windows))
    with pytest.raises(SmgeoError, match="lacks s1_vv observed"):
        model.predict(table[["s1_vv", "clay", "clay observed"]])


def test_a_table_holds_no_windows_of_several_days(make_station_cube):
    model = make_model("Ridge").fit(Windows(make_station_cube(), FEATURES, length=3))
    with pytest.raises(SmgeoError, match="windows of 3 days"):
        model.predict(pd.DataFrame(np.zeros((2, 6))))
