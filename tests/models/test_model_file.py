"""Model files contain only numbers, and estimate only from data with the same features in the same units."""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    AdaBoostRegressor,
    BaggingRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
    StackingRegressor,
    VotingRegressor,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Sum, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    PolynomialFeatures,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeRegressor, ExtraTreeRegressor

import smgeo
from smgeo.errors import SmgeoError
from smgeo.evaluation.parts import evaluate
from smgeo.models import load_model, make_model
from smgeo.models.estimator_checks import numbers_a_row
from smgeo.models.estimator_file import read_estimators, write_estimators
from smgeo.prepare import Split, Windows

FEATURES = ["s1_vv", "clay"]


def _save(estimator, folder: Path) -> Path:
    """The file of a fitted estimator."""
    x = np.random.default_rng(0).random((40, 3))
    return make_model(estimator).fit(x, x[:, 0] + np.sin(5 * x[:, 1])).save(folder) / "regressor.json"


@pytest.fixture
def weights(tmp_path):
    """The weights of a saved regressor."""
    return _save(Ridge(), tmp_path / "m")


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


def _seal_files(folder: Path) -> Path:
    """The checksums of the files that are there now."""
    files = [p for p in folder.iterdir() if p.name != "model.json"]
    return _seal(folder, files={p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files})


def _plant(weights: Path, content: bytes) -> Path:
    """Other weights in a model's folder."""
    weights.write_bytes(content)
    return _seal_files(weights.parent)


def _plant_fitted(weights: Path, fitted: object) -> Path:
    """Something else in the place of the fitted estimator, written as smgeo writes it."""
    write_estimators(weights.parent, {"estimator": clone(fitted, safe=False), "fitted": fitted})
    return _seal_files(weights.parent)


def _edit(weights: Path, change) -> Path:
    """A model's folder after `change` of the fitted estimator's attributes, as a file of JSON, and of the arrays of all."""
    content = json.loads(weights.read_text())
    with np.load(weights.with_suffix(".npz")) as kept:
        arrays = {n: kept[n].copy() for n in kept.files}
    state = dict(content["parts"]["fitted"]["object"][1])
    change(state, arrays)
    content["parts"]["fitted"]["object"][1] = list(state.items())
    weights.write_text(json.dumps(content))
    np.savez(weights.with_suffix(".npz"), **arrays)
    return _seal_files(weights.parent)


class Touch:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_the_same_content_planted_again_is_read(weights):
    load_model(_plant(weights, weights.read_bytes()))


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("of", ["weights", "arrays", "trees"])
def test_a_pickle_is_refused_and_does_not_run(of, tmp_path, protocol, request):
    weights = request.getfixturevalue("weights" if of == "arrays" else of)
    weights = weights.with_suffix(".npz") if of == "arrays" else weights
    mark = tmp_path / "ran"
    content = pickle.dumps(Touch(mark), protocol)
    pickle.loads(content)
    assert mark.exists()
    mark.unlink()
    with pytest.raises(SmgeoError, match=weights.stem):
        load_model(_plant(weights, content))
    assert not mark.exists()


@pytest.mark.parametrize("of", ["weights", "trees"])
def test_a_pickle_inside_of_arrays_does_not_run(of, tmp_path, request):
    file = request.getfixturevalue(of).with_suffix(".npz")
    mark = tmp_path / "ran"
    with np.load(file) as held:
        arrays = {name: np.array([Touch(mark)], dtype=object) for name in held.files}
    content = io.BytesIO()
    np.savez(content, **arrays)
    mark.unlink(missing_ok=True)
    with pytest.raises(SmgeoError, match="Python objects"):
        load_model(_plant(file, content.getvalue()))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("planted", "name"),
    [
        (FunctionTransformer(eval), "builtins.eval"),
        (FunctionTransformer(np.save), "numpy.save"),
        (FunctionTransformer(np.log1p), "numpy.log1p"),
        (FunctionTransformer(Path.touch), r"pathlib\.Path\.touch"),
        (StackingRegressor([("a", Ridge())]), "StackingRegressor"),
    ],
)
def test_functions_and_types_of_others_are_refused_by_name(weights, planted, name):
    with pytest.raises(SmgeoError, match=f"contains .*{name}.*nothing was loaded. Allowed are"):
        load_model(_plant_fitted(weights, planted))


def test_a_function_is_used_when_it_is_trusted(tmp_path):
    file = _save(make_pipeline(FunctionTransformer(np.log1p), Ridge()), tmp_path / "m")
    x = np.random.default_rng(1).random((5, 3))
    with pytest.raises(SmgeoError, match=r"contains numpy\.log1p, which could run code"):
        load_model(file.parent)
    found = load_model(file.parent, trusted=["numpy.log1p"])
    ridge = found.estimator_[-1]
    np.testing.assert_allclose(found.predict(x), np.log1p(x) @ ridge.coef_ + ridge.intercept_, rtol=1e-5)


def test_a_module_that_a_file_names_is_not_imported(weights, tmp_path, monkeypatch):
    mark = tmp_path / "imported"
    (tmp_path / "planted_module.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Planted:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import planted_module

    folder = _plant_fitted(weights, planted_module.Planted())
    assert mark.exists()
    mark.unlink()
    sys.modules.pop("planted_module")
    with pytest.raises(SmgeoError, match=r"planted_module\.Planted"):
        load_model(folder)
    assert not mark.exists()
    assert "planted_module" not in sys.modules


@pytest.mark.parametrize(
    "name",
    [
        "sklearn.linear_model.os",
        "sklearn.linear_model._ridge.Ridge",
        "sklearn.tree._tree.__builtins__",
        "sklearn.linear_model.__builtins__.eval",
        "sklearn.linear_model.",
        "",
        "Ridge",
        "os.system",
    ],
)
def test_only_exact_names_are_known(weights, name):
    content = json.loads(weights.read_text())
    content["parts"]["fitted"]["object"][0] = name
    with pytest.raises(SmgeoError, match="which could run code; nothing was loaded"):
        load_model(_plant(weights, json.dumps(content).encode()))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"[]",
        lambda content: b"3",
        lambda content: b'{"format": 1, "parts": {"other": 3, "fitted": 3}}',
        lambda content: b'{"format": 1, "parts": []}',
        lambda content: b'{"format": "x", "parts": {}}',
        lambda content: content.replace(b'"object"', b'"thing"'),
        lambda content: content.replace(b'{"array": 0}', b'{"array": 99}'),
        lambda content: content.replace(b'{"array": 0}', b'{"array": "os"}'),
        lambda content: content.replace(b'{"array": 0}', b'{"array": 0, "list": []}'),
        lambda content: content.replace(b'{"array": 0}', b'{"list": ' * 60 + b"[]" + b"}" * 60),
        lambda content: content.replace(b'{"array": 0}', b"[" * 5000 + b"]" * 5000),
        lambda content: content.replace(b'{"array": 0}', b'{"dtype": "O"}'),
        lambda content: content.replace(b'{"array": 0}', b'{"type": "object"}'),
        lambda content: content.replace(b'{"array": 0}', b'{"list": [1, "x"]}'),
        lambda content: content.replace(b'"alpha"', b'"predict"'),
        lambda content: content.replace(b'"alpha"', b'"__class__"'),
    ],
)
def test_damaged_and_foreign_files_are_refused(weights, damage):
    with pytest.raises(SmgeoError, match=str(weights.parent)):
        load_model(_plant(weights, damage(weights.read_bytes())))


@pytest.mark.parametrize("part", [Touch("x"), (i for i in [1]), np.zeros(2, dtype="V8,O"), lambda: 1])
def test_what_is_more_than_data_is_not_written(part, tmp_path):
    with pytest.raises(SmgeoError, match="cannot be saved without pickle"):
        write_estimators(tmp_path, {"a": part})


def test_weights_that_are_no_regressor_are_refused(weights):
    for part in (3, StandardScaler()):
        with pytest.raises(SmgeoError, match=f"needs a scikit-learn regressor|{weights.parent}"):
            load_model(_plant_fitted(weights, part))


def test_a_folder_of_an_older_smgeo_says_so(weights):
    weights.unlink()
    with pytest.raises(SmgeoError, match=r"saved by an older smgeo \(no regressor\.json in it\)"):
        load_model(_seal_files(weights.parent))


# ---- numbers that compiled code would follow out of its arrays


def _no_right_child(arrays):
    """Give the first node of the first tree a child far away."""
    nodes = next(a for a in arrays.values() if a.dtype.names and "right_child" in a.dtype.names)
    nodes["right_child"][0] = 10**6


def _own_child(arrays):
    nodes = next(a for a in arrays.values() if a.dtype.names and "right_child" in a.dtype.names)
    nodes["left_child"][0] = 0


def _other_feature(arrays):
    nodes = next(a for a in arrays.values() if a.dtype.names and "feature" in a.dtype.names)
    nodes["feature"][0] = 3


def _boosting(field, value):
    def change(state, arrays):
        nodes = next(a for a in arrays.values() if a.dtype.names and "feature_idx" in a.dtype.names)
        nodes[field][0] = value

    return change


def _set(name, node):
    return lambda state, arrays: state.update({name: node})


FORGED = [
    (DecisionTreeRegressor(), lambda state, arrays: _no_right_child(arrays), "points out of its tree"),
    (DecisionTreeRegressor(), lambda state, arrays: _own_child(arrays), "points out of its tree"),
    (DecisionTreeRegressor(), lambda state, arrays: _other_feature(arrays), "a feature that is none"),
    (DecisionTreeRegressor(), _set("n_features_in_", 2), "another number of features"),
    (DecisionTreeRegressor(), _set("n_features_in_", None), "no number of features"),
    (RandomForestRegressor(2), lambda state, arrays: _no_right_child(arrays), "points out of its tree"),
    (RandomForestRegressor(2), _set("n_features_in_", 2), "different numbers of features"),
    (RandomForestRegressor(2), _set("estimators_", {"list": []}), "without trees"),
    (GradientBoostingRegressor(n_estimators=2), lambda state, arrays: _other_feature(arrays), "a feature that is none"),
    (GradientBoostingRegressor(n_estimators=2), _set("n_features_in_", 2), "different numbers of features"),
    (HistGradientBoostingRegressor(max_iter=1, min_samples_leaf=2), _boosting("left", 10**6), "out of its tree"),
    (HistGradientBoostingRegressor(max_iter=1, min_samples_leaf=2), _boosting("right", 0), "out of its tree"),
    (
        HistGradientBoostingRegressor(max_iter=1, min_samples_leaf=2),
        _boosting("feature_idx", 3),
        "feature that is none",
    ),
    (
        HistGradientBoostingRegressor(max_iter=1, min_samples_leaf=2),
        _boosting("feature_idx", -1),
        "feature that is none",
    ),
    (
        HistGradientBoostingRegressor(max_iter=1, min_samples_leaf=2),
        _boosting("is_categorical", 1),
        "a node of categories",
    ),
    (SVR(), _set("support_vectors_", {"sparse": [[1, 3], 0, 0, 0]}), "damaged"),
    (SVR(), lambda state, arrays: state.update(dual_coef_=state["support_"]), "another shape"),
    (SVR(), _set("n_features_in_", 10**6), "another shape"),
    (SVR(), _set("_impl", "c_svc"), "in the place of its own"),
    (SVR(), _set("kernel", "precomputed"), "a kernel of another kind"),
    (KNeighborsRegressor(), _set("n_samples_fit_", 10**6), "without values"),
    (KNeighborsRegressor(), _set("effective_metric_", "cosine"), "damaged"),
    (make_pipeline(Ridge()), _set("memory", "cache"), "a pipeline with a cache"),
    (Ridge(), _set("coef_", {"list": [1, 2]}), "does not estimate"),
    (Ridge(), _set("intercept_", "x"), "does not estimate"),
    (Ridge(), _set("predict", {"array": 0}), "in the place of its own"),
    (Ridge(), _set("random_state", {"random_state": ["MT19937", {"array": 0}, 10**6, 0, 0.0]}), "beyond its numbers"),
]


@pytest.mark.parametrize(("estimator", "change", "message"), FORGED)
def test_forged_numbers_are_refused(estimator, change, message, tmp_path):
    file = _save(estimator, tmp_path / "m")
    load_model(file.parent)
    with pytest.raises(SmgeoError, match=message):
        load_model(_edit(file, change))


def _fit(estimator, *, columns=3):
    x = np.random.default_rng(0).random((40, columns))
    return estimator.fit(x, x[:, 0])


def _start_of_one_row():
    """Boosting that starts from a regressor which gives one number for all rows: numbers would be added behind it."""
    single = _fit(TransformedTargetRegressor(regressor=DummyRegressor(), transformer=StandardScaler()))
    single._training_dim = 2
    voting = VotingRegressor([("a", single)])
    voting.estimators_ = [single]
    boosting = _fit(GradientBoostingRegressor(n_estimators=2))
    boosting.init_ = voting
    return boosting


def _changed(estimator, **attributes):
    vars(_fit(estimator)).update(attributes)
    return estimator


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_start_of_one_row, "a start of another kind"),
        (lambda: _changed(GradientBoostingRegressor(n_estimators=2), n_trees_per_iteration_=0), "several outputs"),
        (lambda: _changed(HistGradientBoostingRegressor(max_iter=1), _preprocessor=PCA()), "another preparation"),
        (lambda: _changed(HistGradientBoostingRegressor(max_iter=1), _in_fit=True), "attribute '_in_fit'"),
        (
            lambda: make_pipeline(_fit(HistGradientBoostingRegressor(max_iter=1))._bin_mapper, _fit(Ridge())),
            "a part of histogram boosting",
        ),
        (
            lambda: _changed(KNeighborsRegressor(algorithm="brute"), effective_metric_params_={"VI": np.eye(1)}),
            "arguments of a metric",
        ),
        (lambda: _changed(KNeighborsRegressor(), metric_params={"VI": np.eye(1)}), "arguments of a metric"),
        (lambda: _changed(KernelRidge(), kernel_params={"n_jobs": 2000}), "number of jobs"),
        (lambda: _changed(DummyRegressor(), n_outputs_=10**9), "several outputs"),
        (lambda: _changed(RandomForestRegressor(2), n_outputs_=10**9), "several outputs"),
        (lambda: make_pipeline(_changed(PolynomialFeatures(), _max_degree=10**12), _fit(Ridge())), "a degree"),
        (lambda: make_pipeline(_changed(PolynomialFeatures(), degree=1000), _fit(Ridge())), "a degree"),
        (lambda: _changed(Ridge(), coef_=np.array([10**40, 1, 1], dtype=object)), "no estimators|64 bits"),
        (lambda: _changed(Ridge(), intercept_=10**40), "64 bits"),
        (lambda: _changed(Ridge(), coef_=np.zeros((0, 10**6))), "is empty and has the shape"),
    ],
)
def test_forged_estimators_are_refused(make, message, weights):
    with pytest.raises(SmgeoError, match=message):
        load_model(_plant_fitted(weights, make()))


def test_a_forged_number_of_jobs_starts_no_process(weights):
    bagging = _changed(BaggingRegressor(Ridge(), 4), n_jobs=500)
    assert load_model(_plant_fitted(weights, bagging)).estimator_.n_jobs is None
    forest = _changed(RandomForestRegressor(2), n_jobs=10**9)
    assert load_model(_plant_fitted(weights, forest)).estimator_.n_jobs is None


def test_trees_that_share_their_nodes_are_refused(tmp_path):
    file = _save(RandomForestRegressor(2, random_state=0), tmp_path / "m")
    content = file.read_text()
    first, second = re.findall(r'"tree": \[3, (\d+, \d+)\]', content)
    with pytest.raises(SmgeoError, match="two trees have the same nodes"):
        load_model(_plant(file, content.replace(second, first).encode()))


def test_trees_whose_starts_wrap_are_refused(trees):
    with np.load(trees) as kept:
        arrays = dict(kept)
    nodes = len(arrays["feature"])
    arrays["starts"] = np.array([0, 2**63 - 1, -2, nodes])
    arrays["depths"] = np.array([1, 1, 1])
    np.savez(trees, **arrays)
    with pytest.raises(SmgeoError, match="starts outside its arrays"):
        load_model(_seal_files(trees.parent))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_features": 65536}, "n_features as the last one"),
        ({"n_features": -1, "input_shape": [-1]}, "n_features as the last one"),
        ({"n_features": True, "input_shape": [True]}, "n_features: Input should be a valid int"),
        ({"n_features": 10**12, "input_shape": [10**12]}, "n_features as the last one"),
        ({"preparation": {"target": "sm"}}, "preparation.features: Field required"),
        ({"calibration": {}}, "damaged"),
        ({"params": {"kind": "rf"}}, "damaged|no parameter"),
    ],
)
def test_a_forged_manifest_of_a_forest_is_refused(trees, changes, message):
    with pytest.raises(SmgeoError, match=message):
        load_model(_seal(trees.parent, **changes))


@pytest.mark.parametrize("name", ["/tmp/other.zarr/sm", "../sm", "a\\b", "", "..", "sm\x1b]52;c;aWQ=\x07", "x" * 300])
def test_a_name_that_is_a_path_is_refused(make_station_cube, make_grid_cube, tmp_path, name):
    folder = make_model("Ridge").fit(Windows(make_station_cube(), FEATURES, length=1)).save(tmp_path / "m")
    kept = json.loads((folder / "model.json").read_text())["preparation"]
    model = load_model(folder)
    model.preparation_ = kept | {"target": name}
    with pytest.raises(SmgeoError, match="cannot be the name of a variable"):
        smgeo.predict_map(model, make_grid_cube(), tmp_path / "map.zarr")
    for changed in ({"target": name}, {"features": [name, "clay"]}):
        with pytest.raises(SmgeoError, match="cannot be the name of a variable"):
            load_model(_seal(folder, preparation=kept | changed))


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "unnamed", "long name"])
def test_a_folder_contains_files_that_it_names_and_nothing_else(kind, weights, tmp_path):
    folder = weights.parent
    if kind == "link":
        weights.rename(tmp_path / "elsewhere.json")
        weights.symlink_to(tmp_path / "elsewhere.json")
    elif kind == "folder":
        (folder / "sub").symlink_to("/")
    elif kind == "pipe":
        weights.unlink()
        os.mkfifo(weights)
    elif kind == "unnamed":
        (folder / "applicability.npz").write_bytes(b"x")
    else:
        _seal(folder, files=json.loads((folder / "model.json").read_text())["files"] | {"x" * 5000: "0"})
    with pytest.raises(SmgeoError, match=r"neither a file nor a folder|does not name|is missing or damaged"):
        load_model(folder)


def test_a_large_sparse_file_is_not_read(weights):
    for file in (weights, weights.with_suffix(".npz")):
        kept = file.read_bytes()
        os.truncate(file, 2 * 10**11)
        with pytest.raises(SmgeoError, match="larger than 32 MiB|more than half of the"):
            load_model(weights.parent)
        file.write_bytes(kept)
    load_model(weights.parent)


def test_a_network_larger_than_its_weights_is_not_built(tmp_path):
    pytest.importorskip("keras")
    x = np.random.default_rng(0).random((40, 3), dtype="float32")
    folder = make_model("ann", units=4, epochs=1).fit(x, x[:, 0]).save(tmp_path / "m")
    params = json.loads((folder / "model.json").read_text())["params"]
    for changes in ({"units": 10**9}, {"layers": 10**6}, {"units": 200, "layers": 3}):
        with pytest.raises(SmgeoError, match="are not those of a network with these parameters|more than any machine"):
            load_model(_seal(folder, params=params | changes))


def test_arrays_are_weighed_before_they_are_read(weights):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    file = weights.with_suffix(".npz")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("0.npy", head.getvalue() + bytes(80))
    with pytest.raises(SmgeoError, match="fewer numbers than its shape"):
        load_model(_seal_files(file.parent))


def test_an_archive_larger_than_memory_is_refused(weights, monkeypatch):
    import psutil

    free = psutil.virtual_memory()._replace(available=2**20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    file = weights.with_suffix(".npz")
    np.savez_compressed(file, **{str(i): np.zeros(2**18) for i in range(3)})
    assert file.stat().st_size < 2**14
    with pytest.raises(SmgeoError, match="more than half of the 0.0 GB of free memory"):
        load_model(_seal_files(file.parent))


@pytest.mark.parametrize("kind", ["soft", "hard", "external", "storage", "virtual"])
def test_weights_of_a_network_lead_nowhere_else(kind, tmp_path):
    from smgeo.models.network_file import _arrays_in

    secret = tmp_path / "secret"
    secret.write_bytes(bytes(8))
    file, other = tmp_path / "w.h5", tmp_path / "other.h5"
    with h5py.File(other, "w") as root:
        root["a"] = np.ones(4)
    with h5py.File(file, "w") as root:
        root["layers/dense"] = np.ones(4)
    _arrays_in(file)
    with h5py.File(file, "a") as root:
        if kind == "soft":
            root["x"] = h5py.SoftLink("/layers")
        elif kind == "hard":
            root["x"] = root["layers"]
        elif kind == "external":
            root["x"] = h5py.ExternalLink(str(other), "/a")
        elif kind == "storage":
            root.create_dataset("x", (8,), "u1", external=[(str(secret), 0, 8)])
        else:
            layout = h5py.VirtualLayout((4,), "f8")
            layout[:] = h5py.VirtualSource(str(other), "a", (4,))
            root.create_virtual_dataset("x", layout)
    with pytest.raises(ValueError, match="is a link|x has its numbers elsewhere"):
        _arrays_in(file)


def test_values_of_every_form_are_read_back(tmp_path):
    x = np.random.default_rng(0).random((30, 2))
    scaler = StandardScaler().fit(x)
    parts = {"a": scaler, "b": {"x": (1, 2.5, None, True, float("inf")), 3: [np.float32(0.1), slice(1, None)]}}
    write_estimators(tmp_path, parts)
    found = read_estimators(tmp_path, ["a", "b"])
    np.testing.assert_array_equal(found["a"].transform(x), scaler.transform(x))
    assert found["b"] == parts["b"]
    assert type(found["b"][3][0]) is np.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "os.system"}, "unknown model 'os.system'"),
        ({"kind": "Ridge"}, "unknown model 'Ridge'"),
        ({"params": {"estimator": "x"}}, "has no parameter 'estimator'"),
        ({"params": ["seed"]}, "params: Input should be a valid dict"),
        ({"files": ["regressor.json"]}, "files: Input should be a valid dict"),
        ({"input_shape": None}, "input_shape: Input should be a valid list"),
        ({"input_shape": ["x"]}, "input_shape.0: Input should be a valid int"),
        ({"n_features": "x"}, "n_features: Input should be a valid int"),
        ({"training": 3}, "training: Input should be a valid dict"),
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


@pytest.mark.parametrize("name", ["__array_interface__", "__array_struct__", "__array__", "__class__"])
@pytest.mark.parametrize("holder", ["bunch", "dict", "attribute of an estimator", "attribute"])
def test_no_name_that_numpy_follows_is_read(weights, name, holder):
    """An `__array_interface__` gives an address of memory, which NumPy reads as numbers or as objects."""
    interface = {
        "dict": [["data", {"tuple": [16, False]}], ["shape", {"tuple": [1]}], ["typestr", "<f8"], ["version", 3]]
    }
    held = {
        "bunch": {"bunch": [[name, interface]]},
        "dict": {"dict": [[name, interface]]},
        "attribute of an estimator": {"object": ["sklearn.linear_model.Ridge", [[name, interface]]]},
    }
    key, value = (name, interface) if holder == "attribute" else ("intercept_", held[holder])
    folder = _edit(weights, lambda state, arrays: state.update({key: value}))
    with pytest.raises(SmgeoError, match=f"a value named '{name}'"):
        load_model(folder)


def test_a_bunch_starts_no_jobs(weights):
    folder = _edit(weights, lambda state, arrays: state.update(intercept_={"bunch": [["n_jobs", 500]]}))
    with pytest.raises(SmgeoError, match="a number of jobs"):
        load_model(folder)


@pytest.mark.parametrize("name", ["", ".", "a\x00b", "\ud800", "model.json/x", "é" * 200, "../x"])
def test_a_name_of_a_file_that_is_not_in_the_folder_is_refused(weights, name):
    files = json.loads((weights.parent / "model.json").read_text())["files"]
    with pytest.raises(SmgeoError):
        load_model(_seal(weights.parent, files={**files, name: "0" * 64}))


# ---- folders that would take time or memory, or give estimates of another model


@pytest.mark.parametrize("change", ["depth", "loop", "leaf", "shared", "deep"])
def test_a_forest_is_what_its_nodes_say(trees, change):
    """A row goes down as many levels as the file says: too few give another estimate, too many take hours."""
    with np.load(trees) as kept:
        arrays = dict(kept)
    splits = np.flatnonzero(np.isfinite(arrays["threshold"]))
    leaf = np.flatnonzero(np.isinf(arrays["threshold"]))[0]
    if change == "depth":
        arrays["depths"] = arrays["depths"] - 1
    elif change == "loop":
        arrays["child"][splits[1]] = 0
    elif change == "leaf":
        arrays["child"][leaf] = 0
    elif change == "shared":
        arrays["child"][splits[1]] = arrays["child"][splits[0]]
    else:
        depth = 2000
        number = np.arange(2 * depth + 1)
        inner = number % 2 == 0
        inner[-1] = False
        arrays["child"] = np.where(inner, number + 1, number).astype("uint32")
        arrays["threshold"] = np.where(inner, 0.5, np.inf).astype("float32")
        arrays["feature"] = np.zeros(len(number), dtype="uint16")
        arrays["value"] = np.zeros(len(number), dtype="float32")
        arrays["starts"], arrays["depths"] = np.array([0, len(number)]), np.array([depth])
    np.savez(trees, **arrays)
    messages = "another depth|points out of its tree|a leaf leads on|no parent, or two|more than 1000 levels"
    with pytest.raises(SmgeoError, match=messages):
        load_model(_seal_files(trees.parent))


@pytest.fixture(scope="module")
def network_folder(tmp_path_factory):
    pytest.importorskip("keras")
    x = np.random.default_rng(0).random((40, 3), dtype="float32")
    return make_model("ann", units=4, epochs=1).fit(x, x[:, 0]).save(tmp_path_factory.mktemp("ann") / "m")


@pytest.fixture
def network(network_folder, tmp_path):
    """A copy of a network's folder, which a test may change."""
    return Path(shutil.copytree(network_folder, tmp_path / "m"))


@pytest.mark.parametrize("change", ["unwritten", "packed", "type", "shape", "more", "less", "not finite", "attribute"])
def test_weights_of_a_network_are_its_own(network, change):
    place = "layers/dense/vars/0"
    with h5py.File(network / "model.weights.h5", "a") as root:
        kept = root[place][:]
        if change == "less":
            del root["layers/dense/vars/1"]
        elif change == "more":
            root["layers/dense_7/vars/0"] = kept
        elif change == "not finite":
            root[place][0, 0] = np.nan
        elif change == "attribute":
            root[place].attrs["dtype"] = "bfloat16"
        else:
            del root[place]
            if change == "unwritten":
                root.create_dataset(place, kept.shape, "f4")
            elif change == "packed":
                root.create_dataset(place, data=kept, chunks=kept.shape, compression="gzip")
            else:
                root[place] = kept.astype("float64") if change == "type" else kept.reshape(-1)
    with pytest.raises(SmgeoError, match=r"weights are not those of this model: .*(stored|needs|finite)"):
        load_model(_seal_files(network))


def test_a_stored_layer_that_parameters_leave_out_is_not_left_out_in_silence(network):
    params = json.loads((network / "model.json").read_text())["params"]
    with pytest.raises(SmgeoError, match="normalization.*needs nothing"):
        load_model(_seal(network, params=params | {"standardize": False}))


def _refer_often(state, arrays):
    arrays["99"] = np.zeros(10**6)
    state["coef_"] = {"list": [{"array": 99}] * 100}


@pytest.mark.parametrize("shape", [[], [None, 3], [5, 3], [3, 1]])
def test_a_model_has_the_input_of_its_kind(network, shape):
    with pytest.raises(SmgeoError, match="damaged|no input of shape"):
        load_model(_seal(network, input_shape=shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("coef_", {"objects": [[0, 10**9], []]}), "0 objects of the shape"),
        (_set("coef_", {"objects": [[2], ["a"]]}), "1 objects of the shape"),
        (_set("coef_", {"sparse": [[10**6, 10**6], 0, 0, 0]}), "more than half of the"),
        (_set("solver", {"dtype": "V2000000000"}), "not of numbers"),
        (_refer_often, "more often than in any estimator"),
        (_set("coef_", "x"), "does not estimate"),
        (_set("alpha", -1.0), "'alpha' parameter"),
        (_set("intercept_", {"object": ["sklearn.linear_model.Ridge", []]}), "no attribute 'alpha'"),
    ],
)
def test_a_regressor_that_would_fill_memory_or_not_estimate_is_refused(weights, change, message):
    with pytest.raises(SmgeoError, match=message):
        load_model(_edit(weights, change))


def test_the_weight_of_a_whole_estimator_counts(weights, monkeypatch):
    """Each of these makes fewer than a million products of a row."""
    many = make_pipeline(
        FeatureUnion([(str(i), _fit(PolynomialFeatures(9), columns=11)) for i in range(700)]), _fit(Ridge(), columns=11)
    )
    with pytest.raises(SmgeoError, match="holds 117,572,000 numbers for each row"):
        load_model(_plant_fitted(weights, many))
    # Each union makes a hundred times as many of the numbers before it.
    wide = make_pipeline(
        *[FeatureUnion([(str(i), "passthrough") for i in range(100)]) for _ in range(4)], _fit(Ridge())
    )
    with pytest.raises(SmgeoError, match="holds 300,000,000 numbers for each row"):
        load_model(_plant_fitted(weights, wide))


@pytest.mark.parametrize("n_neighbors", [0, -1, 10**9])
def test_parameters_of_an_estimator_are_checked_as_its_fit_checks_them(n_neighbors, tmp_path):
    file = _save(KNeighborsRegressor(), tmp_path / "m")
    with pytest.raises(SmgeoError, match="'n_neighbors' parameter|n_neighbors is 1000000000 and not 5"):
        load_model(_edit(file, _set("n_neighbors", n_neighbors)))


def test_a_bunch_is_no_fitted_regressor(weights):
    content = json.loads(weights.read_text())
    content["parts"]["fitted"] = {"bunch": []}
    with pytest.raises(SmgeoError, match="does not become a Bunch"):
        load_model(_plant(weights, json.dumps(content).encode()))


def test_a_mean_that_is_text_is_refused(tmp_path):
    file = _save(DummyRegressor(), tmp_path / "m")
    change = _set("constant_", {"objects": [[1, 1], ["a"]]})
    with pytest.raises(SmgeoError, match="not one number a row|does not estimate"):
        load_model(_edit(file, change))


def test_blocks_of_a_kernel_machine_follow_its_training_rows():
    """All rows at once against all training rows would be 160 GB here."""
    x = np.random.default_rng(0).random((3, 20))
    machine = KernelRidge(kernel="rbf").fit(x, x[:, 0])
    machine.X_fit_, machine.dual_coef_ = np.tile(x, (10**5, 1)), np.tile(machine.dual_coef_, 10**5) / 10**5
    model = make_model(KernelRidge(kernel="rbf")).fit(x, x[:, 0])
    expected = model.predict(x)
    model.estimator_ = machine
    np.testing.assert_allclose(model.predict(np.tile(x, (100, 1)))[-3:], expected, rtol=1e-4)


@pytest.mark.parametrize("kind", [RandomForestRegressor, GradientBoostingRegressor, HistGradientBoostingRegressor])
def test_trees_make_no_blocks_smaller(kind):
    """However many there are, a row is in one after the other."""
    count = {"max_iter": 50} if kind is HistGradientBoostingRegressor else {"n_estimators": 50}
    assert numbers_a_row(_fit(kind(**count)), 3) <= 100


def test_many_and_deep_folders_are_refused(weights):
    deep = weights.parent.joinpath(*"abcdefgh")
    deep.mkdir(parents=True)
    with pytest.raises(SmgeoError, match="4 levels of folders"):
        load_model(weights.parent)
    shutil.rmtree(weights.parent / "a")
    for i in range(1001):
        (weights.parent / f".{i}").touch()
    with pytest.raises(SmgeoError, match="more than 1000 files"):
        load_model(weights.parent)


def test_a_manifest_of_very_many_empty_values_is_refused(weights):
    file = weights.parent / "model.json"
    file.write_text("[" + "[]," * 20_000_000 + "[]]")
    with pytest.raises(SmgeoError, match="larger than 32 MiB"):
        load_model(weights.parent)


@pytest.fixture
def prepared(make_station_cube, tmp_path):
    """The folder of a forest with a scaled target, intervals and an area of applicability."""
    cube = make_station_cube()
    ids = [str(s) for s in cube["station"].values]
    split = Split(tuple(ids[:-4]), tuple(ids[-4:-2]), tuple(ids[-2:]))
    scaled = smgeo.Scaler("minmax").fit_transform(cube.sel(station=list(split.train)))
    model = make_model("rf", trees=3, threads=1, engine="sklearn").fit(Windows(scaled, FEATURES, length=1))
    smgeo.calibrate(model, cube, split)
    smgeo.find_applicability(model, cube, split, dict.fromkeys(FEATURES, 1.0))
    return model.save(tmp_path / "m")


def _change(name, **changes):
    return lambda manifest: {name: manifest[name] | changes}


def _rescale(manifest, **changes):
    steps = [
        s | ({"scaler": s["scaler"] | changes} if s["step"] == "scale" else {})
        for s in manifest["preparation"]["steps"]
    ]
    return {"preparation": manifest["preparation"] | {"steps": steps}}


def test_forged_widths_of_the_nearest_groups_are_refused(make_station_cube, tmp_path):
    cube = make_station_cube()
    ids = [str(s) for s in cube["station"].values]
    split = Split(tuple(ids[:2]), tuple(ids[2:-1]), tuple(ids[-1:]))
    model = make_model("Ridge").fit(Windows(cube.sel(station=list(split.train)), FEATURES, length=1))
    smgeo.calibrate(model, cube, split, nearest=2)
    folder = model.save(tmp_path / "m")
    assert load_model(folder).calibration_.local.nearest == 2
    manifest = json.loads((folder / "model.json").read_text())
    with np.load(folder / "calibration.npz") as kept:
        good = dict(kept)
    calibration = {k: v for k, v in manifest["calibration"].items() if k != "nearest"}
    for changes, message in (
        ({"calibration": calibration}, "calibration.npz and what is said of it do not fit"),
        ({"calibration": calibration | {"nearest": 10**6}}, "contains no intervals"),
        ({"calibration": calibration | {"nearest": 0}}, "contains no intervals"),
    ):
        with pytest.raises(SmgeoError, match=message):
            load_model(_seal(folder, **changes))
    _seal(folder, calibration=manifest["calibration"])
    for name, value in (
        ("shares", np.float32(1)),
        ("shares", good["shares"][:, ::-1]),
        ("scores", -good["scores"]),
        ("scores", good["scores"].astype("float64")),
        ("positions", good["positions"][:1]),
        ("factor", good["factor"] * np.nan),
        ("center", np.zeros((2, 2))),
        ("more", np.zeros(1)),
    ):
        np.savez(folder / "calibration.npz", **{**good, name: value})
        with pytest.raises(SmgeoError, match="contains no intervals"):
            load_model(_seal_files(folder))
    short = {n: good[n][:-1] if n in ("center", "factor") else good[n] for n in good}
    np.savez(folder / "calibration.npz", **{**short, "positions": good["positions"][:, :-1]})
    with pytest.raises(SmgeoError, match="of another kind of model"):
        load_model(_seal_files(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_change("calibration", widths=[]), "intervals are none"),
        (_change("calibration", widths=[-1.0] * 666), "intervals are none"),
        (_change("calibration", stations=10**9), "intervals are none"),
        (_change("calibration", limits=[0.5, 0.1]), "intervals are none"),
        (_change("calibration", limits=[0.5]), "damaged"),
        (_change("calibration", offset=None), "of another kind of model"),
        (_change("calibration", widths="x"), "calibration.widths"),
        (_change("calibration", rows=True), "calibration.rows"),
        (_change("calibration", nearest=2), "calibration.npz and what is said of it do not fit"),
        (lambda manifest: {"applicability": None}, "applicability.npz and what is said of it do not fit"),
        (_change("applicability", features=["clay", "s1_vv"]), "not those of the preparation"),
        (_change("applicability", features=["s1_vv"]), "not those of the preparation"),
        (_change("applicability", threshold="x"), "applicability.threshold"),
        (_change("applicability", mean_distance=0.0), "no area of applicability"),
        (_change("applicability", threshold=float("nan")), "no area of applicability"),
        (_change("preparation", missing=2.0), "do not fit each other"),
        (_change("preparation", length=5), "not those of the preparation"),
        (_change("preparation", mode="sequence"), "not those of the preparation"),
        (_change("preparation", fill=[1.0]), "do not fit each other"),
        (_change("preparation", features=["s1_vv", "s1_vv"]), "do not fit each other"),
        (_change("preparation", units={}), "do not fit each other"),
        (lambda manifest: {"feature_names": [["a"], ["b"]]}, "feature_names"),
        (lambda manifest: {"feature_names": ["a"]}, "feature_names are not n_features"),
        (lambda manifest: _rescale(manifest, center={"sm": "x"}), "not the state of a scaler"),
        (lambda manifest: _rescale(manifest, kind="os"), "not the state of a scaler"),
        (lambda manifest: _rescale(manifest, center=dict.fromkeys(FEATURES, 10**400)), "damaged|state of a scaler"),
    ],
)
def test_a_forged_preparation_interval_or_area_is_refused(prepared, change, message):
    manifest = json.loads((prepared / "model.json").read_text())
    load_model(prepared)
    with pytest.raises(SmgeoError, match=message):
        load_model(_seal(prepared, **change(manifest)))


def test_a_target_that_the_cube_lacks_is_named(prepared, make_station_cube):
    cube = make_station_cube()
    ids = tuple(str(s) for s in cube["station"].values)
    kept = json.loads((prepared / "model.json").read_text())["preparation"]
    model = load_model(_seal(prepared, preparation=kept | {"target": "soil"}))
    with pytest.raises(SmgeoError, match="soil"):
        smgeo.evaluate(model, cube, Split(ids[:-4], ids[-4:-2], ids[-2:]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_pipeline(FunctionTransformer(ConstantKernel()), _fit(Ridge())), "in the place of a function"),
        (lambda: make_pipeline(FunctionTransformer(float), _fit(Ridge())), "in the place of a function"),
        (lambda: _changed(KernelRidge(), kernel=ConstantKernel()), "in the place of a function"),
        (lambda: _changed(DummyRegressor(), constant_=[[0.5]]), "a mean that is no array"),
        (lambda: _changed(BaggingRegressor(Ridge(), 2), estimators_features_=[[0] * 8000] * 2), "features of another"),
        (lambda: _changed(BaggingRegressor(Ridge(), 2), estimators_features_=[np.arange(3)]), "estimators of another"),
        (lambda: _changed(GaussianProcessRegressor(), kernel_=_sum_of_kernels(6)), "kernel of more than 20 parts"),
        (
            lambda: _changed(GaussianProcessRegressor(), kernel_=ConstantKernel("x")),
            "constant_value of a kernel is 'x'",
        ),
        (lambda: _changed(RandomForestRegressor(4), n_estimators=40), "4 trees of 40"),
        (lambda: _changed(GradientBoostingRegressor(n_estimators=2), n_estimators=9), "stages of another number"),
        (lambda: _changed(HistGradientBoostingRegressor(max_iter=2), max_iter=9), "stages of another number"),
        (lambda: _changed(AdaBoostRegressor(n_estimators=2), n_estimators=1), "estimators of another number"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(make, message, weights):
    with pytest.raises(SmgeoError, match=message):
        load_model(_plant_fitted(weights, make()))


def _sum_of_kernels(levels):
    return ConstantKernel() if not levels else Sum(_sum_of_kernels(levels - 1), _sum_of_kernels(levels - 1))


def test_estimators_deep_in_each_other_are_neither_saved_nor_read(weights, tmp_path):
    """Each level makes some of scikit-learn's questions take three times as long."""
    deep = Ridge()
    for _ in range(10):
        deep = make_pipeline(deep)
    with pytest.raises(SmgeoError, match="more than 6 levels deep"):
        write_estimators(tmp_path, {"a": deep})
    node = ["sklearn.linear_model.Ridge", []]
    for _ in range(10):
        node = ["sklearn.pipeline.Pipeline", [["steps", {"list": [{"tuple": ["a", {"object": node}]}]}]]]
    content = json.loads(weights.read_text())
    content["parts"]["fitted"] = {"object": node}
    with pytest.raises(SmgeoError, match="more than 6 levels deep"):
        load_model(_plant(weights, json.dumps(content).encode()))


@pytest.mark.parametrize(
    ("described", "fitted", "message"),
    [
        (
            make_pipeline(StandardScaler(), Ridge()),
            make_pipeline(MinMaxScaler(), Ridge()),
            "steps is 'minmaxscaler' and not",
        ),
        (
            make_pipeline(StandardScaler(), Ridge()),
            make_pipeline(StandardScaler(with_mean=False), Ridge()),
            "with_mean",
        ),
        (make_pipeline(StandardScaler(), Ridge()), make_pipeline(StandardScaler(), Ridge(alpha=7.0)), "alpha is 7.0"),
        (BaggingRegressor(Ridge(), 4), BaggingRegressor(Ridge(), 5), "n_estimators is 5 and not 4"),
        (BaggingRegressor(Ridge(), 2), BaggingRegressor(Ridge(alpha=3.0), 2), "alpha is 3.0"),
        (
            VotingRegressor([("a", Ridge()), ("b", SVR())]),
            VotingRegressor([("a", Ridge()), ("b", KNeighborsRegressor())]),
            "SVR does not become",
        ),
        (TransformedTargetRegressor(Ridge()), TransformedTargetRegressor(SVR()), "Ridge does not become a SVR"),
    ],
)
def test_a_fitted_estimator_is_the_one_that_is_described(described, fitted, message, weights):
    """Else `repr` would show another model than the one that estimates."""
    for kept in (described, fitted):
        _fit(kept)
        write_estimators(weights.parent, {"estimator": clone(kept), "fitted": kept})
        load_model(_seal_files(weights.parent))
    write_estimators(weights.parent, {"estimator": clone(described), "fitted": fitted})
    with pytest.raises(SmgeoError, match=message):
        load_model(_seal_files(weights.parent))


def test_a_part_of_a_voting_that_is_missing_is_noticed(weights):
    voting = _fit(VotingRegressor([("a", Ridge()), ("b", SVR())]))
    voting.estimators_ = voting.estimators_[:1]
    with pytest.raises(SmgeoError, match="VotingRegressor of 2 estimators has 1"):
        load_model(_plant_fitted(weights, voting))


def test_arrays_packed_in_another_way_are_refused(weights):
    """zipfile unpacks bzip2 in one piece, whatever size the archive says it has."""
    file = weights.with_suffix(".npz")
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(SmgeoError, match="packed in another way"):
        load_model(_seal_files(weights.parent))


@pytest.mark.parametrize("changes", [{"trees": 300}, {"max_depth": 1}])
def test_a_forest_is_the_one_that_its_parameters_describe(trees, changes):
    params = json.loads((trees.parent / "model.json").read_text())["params"]
    with pytest.raises(SmgeoError, match="2 trees of up to . levels are not the"):
        load_model(_seal(trees.parent, params=params | changes))


@pytest.mark.parametrize("name", ["time", "x", "spatial_ref", "zarr.json"])
def test_a_target_is_no_coordinate(prepared, name):
    kept = json.loads((prepared / "model.json").read_text())["preparation"]
    with pytest.raises(SmgeoError, match="cannot be the name of a variable"):
        load_model(_seal(prepared, preparation=kept | {"target": name}))


@pytest.mark.parametrize("stations", [5, None, [[1]], "abc"])
@pytest.mark.parametrize("part", ["stations", "validation_stations"])
def test_stations_of_training_are_a_list_of_text(prepared, part, stations):
    training = json.loads((prepared / "model.json").read_text())["training"]
    with pytest.raises(SmgeoError, match="stations are no list of text"):
        load_model(_seal(prepared, training=training | {part: stations}))


def test_units_that_cannot_be_written_are_refused(prepared):
    kept = json.loads((prepared / "model.json").read_text())["preparation"]
    with pytest.raises(SmgeoError, match="do not fit each other"):
        load_model(_seal(prepared, preparation=kept | {"target_units": "\ud800"}))


@pytest.mark.parametrize("center", [5, 10**30])
def test_whole_numbers_of_a_scaler_are_read_as_others(prepared, make_station_cube, center):
    """Numba compiles no number of more than 64 bits. 1e30 is not 10**30, so that the steps of the cube are others then."""
    manifest = json.loads((prepared / "model.json").read_text())
    cube = make_station_cube()
    ids = tuple(str(s) for s in cube["station"].values)
    split = Split(ids[:-4], ids[-4:-2], ids[-2:])
    centers = dict.fromkeys([*FEATURES, "precipitation", "temperature", "sm"], center)
    model = load_model(_seal(prepared, **_rescale(manifest, center=centers)))
    if center == 5:
        assert smgeo.evaluate(model, cube, split).scores["test"]["n"] > 0
    else:
        with pytest.raises(SmgeoError, match="prepared otherwise"):
            smgeo.evaluate(model, cube, split)


@pytest.mark.parametrize("change", ["rows", "weights", "scale", "center"])
def test_an_area_that_would_take_minutes_or_overflow_is_refused(prepared, change):
    with np.load(prepared / "applicability.npz") as kept:
        arrays = dict(kept)
    if change == "rows":
        arrays["reference"] = np.zeros((1_000_001, arrays["reference"].shape[1]), "float32")
    else:
        arrays[change][0] = 1e-300 if change == "scale" else 1e308
    np.savez_compressed(prepared / "applicability.npz", **arrays)
    with pytest.raises(SmgeoError, match="its reference has 1000001 rows|its numbers are too large"):
        load_model(_seal_files(prepared))


@pytest.mark.parametrize(("of", "by"), [("tensorflow", "jax"), ("jax", "tensorflow")])
def test_a_network_of_one_backend_is_read_by_another(of, by, tmp_path):
    """They count in whole numbers of other lengths."""
    pytest.importorskip("jax")
    pytest.importorskip("tensorflow")
    code = (
        "import sys, numpy as np, smgeo\n"
        "x = np.random.default_rng(0).random((60, 4))\n"
        "if sys.argv[1] == 'save':\n"
        "    model = smgeo.make_model('ann', units=4, epochs=1).fit(x, x[:, 0])\n"
        "    model.save('m')\n"
        "    np.save('m.npy', model.predict(x))\n"
        "else:\n"
        "    np.testing.assert_allclose(smgeo.load_model('m').predict(x), np.load('m.npy'), atol=1e-5)\n"
    )
    for backend, act in ((of, "save"), (by, "load")):
        environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(Path(smgeo.__file__).parents[1])}
        subprocess.run([sys.executable, "-c", code, act], cwd=tmp_path, env=environment, check=True)


def test_a_wide_network_estimates_in_small_batches():
    """8,192 rows at once would take 2 GB here."""
    pytest.importorskip("keras")
    from smgeo.models.networks import Ann

    model = Ann(units=65_536)
    model.input_shape_ = (3,)
    assert model._rows_at_once(10_000, (3,)) == 512
    assert Ann().fit(np.random.rand(40, 3), np.random.rand(40))._rows_at_once(10_000, (3,)) == 8192


# ---- after a second attack


@pytest.mark.parametrize(("name", "value"), [("_n_out_full", 20), ("n_output_features_", 15), ("_n_out_full", 5)])
def test_polynomials_have_the_products_that_scikit_learn_fills(weights, name, value):
    """Columns that nobody fills are whatever stands in memory."""
    products = _changed(PolynomialFeatures((2, 3), interaction_only=True), **{name: value})
    width = value if name == "n_output_features_" else 4
    with pytest.raises(SmgeoError, match="another number of products"):
        load_model(_plant_fitted(weights, make_pipeline(products, _fit(Ridge(), columns=width))))


def test_zeros_that_are_packed_by_the_hundred_are_refused(weights):
    file = weights.with_suffix(".npz")
    with np.load(file) as kept:
        arrays = dict(kept)
    np.savez_compressed(file, **arrays, more=np.zeros(40 * 2**20))
    with pytest.raises(SmgeoError, match="as only zeros are packed"):
        load_model(_seal_files(file.parent))


def _two_parents(levels):
    """A tree of histogram boosting whose nodes have the next one twice as a child."""

    def change(state, arrays):
        name, nodes = next((n, a) for n, a in arrays.items() if a.dtype.names and "is_leaf" in a.dtype.names)
        inner, leaf = nodes[nodes["is_leaf"] == 0][0], nodes[nodes["is_leaf"] == 1][0]
        chain = np.array([inner] * levels + [leaf])
        chain["left"][:-1] = chain["right"][:-1] = np.arange(levels) + 1
        arrays[name] = chain

    return change


@pytest.mark.parametrize(
    ("estimator", "change", "message"),
    [
        (HistGradientBoostingRegressor(max_iter=1, min_samples_leaf=2), _two_parents(5), "two parents"),
        (Ridge(), _set("intercept_", {"float": "nan"}), "intercept_ is not finite"),
        (KNeighborsRegressor(), lambda state, arrays: state.update(_y=state["_fit_X"]), "neighbours of several values"),
    ],
)
def test_more_forged_numbers_are_refused(estimator, change, message, tmp_path):
    with pytest.raises(SmgeoError, match=message):
        load_model(_edit(_save(estimator, tmp_path / "m"), change))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _changed(TransformedTargetRegressor(), regressor_=_fit(SVR())), "usually LinearRegression"),
        (lambda: _changed(BaggingRegressor(n_estimators=1), estimators_=[_fit(SVR())]), "usually of trees"),
        (
            lambda: _changed(RandomForestRegressor(1), estimators_=[_fit(ExtraTreeRegressor())]),
            "trees of another kind or depth",
        ),
        (lambda: _changed(RandomForestRegressor(1), max_depth=1), "trees of another kind or depth"),
        (
            lambda: _changed(GaussianProcessRegressor(ConstantKernel() * RBF()), kernel_=ConstantKernel() + RBF()),
            "another kernel was fitted",
        ),
        (
            lambda: _changed(MLPRegressor(hidden_layer_sizes=(4,), max_iter=5), hidden_layer_sizes=(5,)),
            "layers of other sizes",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_parts_of_another_kind_are_refused(make, message, weights):
    with pytest.raises(SmgeoError, match=message):
        load_model(_plant_fitted(weights, make()))


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(FeatureUnion([("same", "passthrough"), ("pca", PCA(2))]), Ridge()),
        GaussianProcessRegressor(RBF([1.0, 1.0, 1.0]), alpha=0.1),
        GaussianProcessRegressor(ConstantKernel() * RBF() + WhiteKernel(), alpha=0.1),
        KNeighborsRegressor(p=3),
        BaggingRegressor(KNeighborsRegressor(), 3, max_features=2),
        AdaBoostRegressor(n_estimators=3),
        make_pipeline(PolynomialFeatures((2, 3), interaction_only=True), StandardScaler(), Ridge()),
        make_pipeline(make_pipeline(StandardScaler(), make_pipeline(PCA(2), Ridge()))),
        VotingRegressor([("a", Ridge()), ("b", "drop"), ("c", SVR())]),
        TransformedTargetRegressor(Ridge(), transformer=QuantileTransformer(n_quantiles=10)),
        HistGradientBoostingRegressor(max_iter=9, early_stopping=True, min_samples_leaf=2),
        GradientBoostingRegressor(n_estimators=9, n_iter_no_change=2),
        MLPRegressor(hidden_layer_sizes=(4, 3), max_iter=5),
    ],
    ids=lambda e: re.sub(r"\W+", " ", str(e))[:50],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:n_quantiles")
def test_honest_estimators_of_every_kind_are_read(estimator, tmp_path):
    x = np.random.default_rng(0).random((60, 3))
    model = make_model(estimator).fit(x, x[:, 0] + np.sin(5 * x[:, 1]))
    np.testing.assert_array_equal(load_model(model.save(tmp_path / "m")).predict(x), model.predict(x))


def test_a_dispatched_function_of_numpy_is_used_when_it_is_trusted(tmp_path):
    scaler = FunctionTransformer(np.clip, kw_args={"a_min": 0.2, "a_max": 0.8})
    file = _save(make_pipeline(scaler, Ridge()), tmp_path / "m")
    assert load_model(file.parent, trusted=["numpy.clip"]).predict(np.zeros((1, 3))).shape == (1,)


def test_what_cannot_be_read_is_not_written(tmp_path):
    x = np.random.default_rng(0).random((40, 3))
    model = make_model(GradientBoostingRegressor(n_estimators=2, init=Ridge())).fit(x, x[:, 0])
    with pytest.raises(SmgeoError, match="cannot be saved without pickle.*a start of another kind"):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "change", [{"target": "\ud800"}, {"steps": [{"step": "derive", "features": ["doy_sin"]}] * 51}]
)
def test_more_forged_preparations_are_refused(prepared, change):
    kept = json.loads((prepared / "model.json").read_text())["preparation"]
    with pytest.raises(SmgeoError, match="cannot be the name of a variable|do not fit each other"):
        load_model(_seal(prepared, preparation=kept | change))


@pytest.mark.parametrize(("name", "value"), [("scale", 1e-38), ("center", 3.4e38), ("scale", 1e60)])
def test_an_area_beyond_float32_is_refused(prepared, name, value):
    with np.load(prepared / "applicability.npz") as kept:
        arrays = dict(kept)
    arrays[name][0] = value
    np.savez_compressed(prepared / "applicability.npz", **arrays)
    with pytest.raises(SmgeoError, match="too large or too small"):
        load_model(_seal_files(prepared))
