"""Metrics of sets of trajectories, for any model. A new metric takes a function and a line in `METRICS`."""

from .sets import (
    METRICS,
    Neighbourhoods,
    features,
    fit_scale,
    frechet_distance,
    measure,
    mmd,
    neighbourhoods,
    novelty,
    sliced_wasserstein,
    two_sample_accuracy,
    wasserstein,
)
from .single import Violations, condition_error, smoothness, violations

__all__ = ["METRICS", "Neighbourhoods", "Violations", "condition_error", "features", "fit_scale", "frechet_distance",
           "measure", "mmd", "neighbourhoods", "novelty", "sliced_wasserstein", "smoothness", "two_sample_accuracy",
           "violations", "wasserstein"]
