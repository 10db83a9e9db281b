"""Results of a small run, as `results.json` contains them."""

import copy

import pytest

_MEDIANS = {"rmse_median": 0.06, "ubrmse_median": 0.05, "bias_median": 0.0, "r_median": 0.8}
_SCORES = {
    "rmse": 0.0625,
    "ubrmse": 0.05,
    "bias": -0.01,
    "r": None,
    "n": 1200,
    "stations": 3,
    "per_station": _MEDIANS,
}
_STATION_SCORE = {"mean": 0.065, "mean_interval": [0.04, 0.09], "median": 0.06, "median_interval": [0.05, 0.08]}
_OVER_STATIONS = {
    "stations": 3,
    "stations_of_few_rows": 1,
    "least_rows": 10,
    "clusters": 3,
    "clusters_equal": 2.9,
    "clusters_by": "place",
    "rmse": _STATION_SCORE,
    "ubrmse": _STATION_SCORE,
    "bias": _STATION_SCORE,
    "r": {"mean": 0.7, "mean_interval": [None, None], "median": 0.8, "median_interval": [None, None]},
}
_RESULTS = {
    "name": "toy",
    "target": {"variable": "sm", "units": "m3 m-3", "depth_m": [0.0, 0.1]},
    "models": {"rf": {"test": _SCORES}},
    "intervals": {
        "rf": {"test": {"rmse": [0.05, 0.075], "ubrmse": [None, None], "bias": [-0.02, 0.0], "r": [None, None]}}
    },
    "over_stations": {"rf": {"test": _OVER_STATIONS}},
    "comparisons": [
        {
            "first": "rf",
            "second": "ann",
            "n": 1000,
            "stations": 3,
            "clusters": 3,
            "clusters_unequal": 3,
            "rmse_first": 0.0625,
            "rmse_second": 0.0575,
            "difference": 0.005,
            "interval": [-0.01, 0.02],
            "stations_first_better": 1,
            "stations_second_better": 2,
            "p_value": 0.25,
            "effect": 0.5,
            "p_adjusted": 0.25,
        }
    ],
    "cross_validation": {
        "rf_selected": {
            "method": "leave-location-out",
            "folds": 3,
            "selected": [["a", "b"], ["b"], ["b", "c"]],
            "r2_mean_of_folds": 0.625,
            "r2_pooled": 0.5,
            "r2_station_means": -0.25,
            "rmse_pooled": 0.07,
            "n": 1200,
            "stations": 3,
            "r2_of_folds": [0.5, 0.75, None],
        }
    },
    "prediction_intervals": {
        "rf": {
            "level": 0.9,
            "calibrated_on": {"stations": 4, "rows": 400},
            "covered": 0.925,
            "covered_stations": 0.875,
            "covered_groups": 0.85,
            "width": 0.25,
            "stations": 3,
            "rows": 1200,
            "groups": {
                "network": [
                    {
                        "group": "A",
                        "covered": 1.0,
                        "covered_stations": 1.0,
                        "width": 0.25,
                        "stations": 1,
                        "rows": 200,
                    }
                ]
            },
        }
    },
    "search": {
        "rf": {
            "best": 1,
            "trials": [
                {"trial": 0, "status": "stopped", "epochs": 1, "params": {"trees": 5}, "validation_rmse": 0.08},
                {
                    "trial": 1,
                    "status": "finished",
                    "epochs": 3,
                    "params": {"trees": 9, "rate": 0.00123456},
                    "validation_rmse": 0.07,
                },
                {"trial": 2, "status": "failed", "epochs": 0, "params": {"trees": 7}, "validation_rmse": None},
            ],
        }
    },
    "split": {
        "train": ["N/a", "N/b"],
        "validation": [],
        "test": ["N/c"],
        "forced": {"N/a": ["min clay"]},
        "forced_share": 0.3333,
        "in_buffer": ["N/d", "N/e"],
        "groups": {"by": "clusters", "same_place_m": 30.0, "buffer_km": 1.5, "km": 20.0, "number": 3},
    },
    "distances": {
        "test": {
            "stations": 1,
            "km_min": 0.05,
            "km_median": 0.05,
            "km_max": 0.05,
            "within_1_km": 1,
            "within_100_m": 0,
            "shared_pixels": {"clay": 1, "slope": 0},
        },
        "map": {"pixels": 2000, "km_median": 12.345, "km_max": 1234.5},
        "warning": "The test stations lie beside training stations.",
    },
    "training": {"rf": {"rows": 900, "window_days": 1, "outlier_rows": 0, "left_out": []}},
}


@pytest.fixture
def results():
    """Results without `schema_version`; a fresh copy for each test."""
    return copy.deepcopy(_RESULTS)


@pytest.fixture
def provenance():
    """Provenance of the same run."""
    return {
        "recipe": "toy",
        "seed": 0,
        "versions": {"smgeo": "0.1.0"},
        "platform": "Linux",
        "inputs": {},
        "stages": {
            "model rf": {"key": "0" * 64, "seconds": 90, "peak_memory_bytes": 1_500_000_000},
            "search rf": {"key": "1" * 64, "seconds": 240, "peak_memory_bytes": 3_000_000_000},
        },
    }
