"""The estimators that a model's file may contain: classes of scikit-learn that are data alone.

An estimator is on the list if nothing that stands in its attributes is called or looked up by name. `StackingRegressor`, which calls
methods that it has the names of, is not.
"""

from __future__ import annotations

import importlib
from functools import cache

_BOOSTING = "sklearn.ensemble._hist_gradient_boosting"

_KNOWN = {
    "sklearn.compose": "TransformedTargetRegressor",
    "sklearn.cross_decomposition": "CCA PLSCanonical PLSRegression",
    "sklearn.decomposition": "PCA TruncatedSVD",
    "sklearn.dummy": "DummyRegressor",
    "sklearn.ensemble": "AdaBoostRegressor BaggingRegressor ExtraTreesRegressor GradientBoostingRegressor HistGradientBoostingRegressor "
    "RandomForestRegressor VotingRegressor",
    f"{_BOOSTING}.binning": "_BinMapper",
    f"{_BOOSTING}.predictor": "TreePredictor",
    "sklearn.feature_selection": "VarianceThreshold",
    "sklearn.gaussian_process": "GaussianProcessRegressor",
    "sklearn.gaussian_process.kernels": "ConstantKernel DotProduct ExpSineSquared Exponentiation Matern PairwiseKernel Product RBF "
    "RationalQuadratic Sum WhiteKernel",
    "sklearn.impute": "SimpleImputer",
    "sklearn.isotonic": "IsotonicRegression",
    "sklearn.kernel_approximation": "Nystroem RBFSampler",
    "sklearn.kernel_ridge": "KernelRidge",
    "sklearn.linear_model": "ARDRegression BayesianRidge ElasticNet ElasticNetCV GammaRegressor HuberRegressor Lars LarsCV Lasso LassoCV "
    "LassoLars LassoLarsCV LassoLarsIC LinearRegression OrthogonalMatchingPursuit OrthogonalMatchingPursuitCV "
    "PassiveAggressiveRegressor PoissonRegressor QuantileRegressor RANSACRegressor Ridge RidgeCV SGDRegressor TheilSenRegressor "
    "TweedieRegressor",
    "sklearn.neighbors": "KNeighborsRegressor RadiusNeighborsRegressor",
    "sklearn.neural_network": "MLPRegressor",
    "sklearn.pipeline": "FeatureUnion Pipeline",
    "sklearn.preprocessing": "FunctionTransformer MaxAbsScaler MinMaxScaler Normalizer PolynomialFeatures PowerTransformer "
    "QuantileTransformer RobustScaler StandardScaler",
    "sklearn.svm": "LinearSVR NuSVR SVR",
    "sklearn.tree": "DecisionTreeRegressor ExtraTreeRegressor",
}
# What an estimator needs only to be fitted, or what is made again from the rest.
_LEFT_OUT = {
    "GammaRegressor": ("_base_loss",),
    "GaussianProcessRegressor": ("_rng",),
    "GradientBoostingRegressor": ("_loss", "_rng"),
    "HistGradientBoostingRegressor": ("_loss", "_feature_subsample_rng", "_scorer"),
    "IsotonicRegression": ("f_",),
    "KNeighborsRegressor": ("_tree",),
    "MLPRegressor": ("_optimizer", "_random_state"),
    "PoissonRegressor": ("_base_loss",),
    "RadiusNeighborsRegressor": ("_tree",),
    "TweedieRegressor": ("_base_loss",),
}


@cache
def known_class(name: str) -> type | None:
    """Return the class of a name such as `sklearn.linear_model.Ridge`, if it is on the list; nothing else is imported."""
    module, _, own = name.rpartition(".")
    if own not in _KNOWN.get(module, "").split():
        return None
    found = getattr(importlib.import_module(module), own, None)
    return found if isinstance(found, type) else None


@cache
def known_name(kind: type) -> str | None:
    """Return the name under which a class is on the list; None if it is not."""
    names = (f"{module}.{kind.__name__}" for module, listed in _KNOWN.items() if kind.__name__ in listed.split())
    return next((n for n in names if known_class(n) is kind), None)


def left_out(kind: type) -> tuple[str, ...]:
    """Return the attributes of an estimator that its file does not contain."""
    return _LEFT_OUT.get(kind.__name__, ()) if known_name(kind) else ()
