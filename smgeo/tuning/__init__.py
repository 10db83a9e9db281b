"""Searches: parameters drawn, trials run on Ray Tune, one table that a killed search goes on from."""

from smgeo.tuning.search import tune

__all__ = ["tune"]
