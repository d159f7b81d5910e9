"""How good a set of trajectories is, for any model. Adding a metric of sets is a function and a line in `METRICS`."""

from .measuring import features, fit_scale, measure
from .modes import ModeCoverage, mode_shares, modes_covered, nearest_mode
from .sets import (
    METRICS,
    Neighbourhoods,
    frechet_distance,
    mmd,
    neighbourhoods,
    novelty,
    sliced_wasserstein,
    two_sample_accuracy,
    wasserstein,
)
from .single import Violations, condition_error, smoothness, violations

__all__ = ["METRICS", "ModeCoverage", "Neighbourhoods", "Violations", "condition_error", "features", "fit_scale",
           "frechet_distance", "measure", "mmd", "mode_shares", "modes_covered", "nearest_mode", "neighbourhoods",
           "novelty", "sliced_wasserstein", "smoothness", "two_sample_accuracy", "violations", "wasserstein"]
