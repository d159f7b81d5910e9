"""`gentraj augment`: a dataset extended by rollouts of a world model."""

from __future__ import annotations

from typing import Annotated

import tyro

from ..config import settings
from ..progress import print_saved
from ..runs.augmentation import AugmentConfig, augment
from .options import parse


@settings
class Augment(AugmentConfig):
    """Extend a dataset with synthetic steps of a world model, and save the result as a new Minari dataset.

    The model is rolled out from states of the data, in short branches that end where it is too uncertain. The actions
    are those of the data with noise, or of --policy, or of trajectories sampled by the planner --trajectories.

    When a policy is trained on the new dataset, its critic learns from all steps but the policy itself only from the
    real ones. With --trajectories but without --policy both learn from all steps, as the actions are like the data's.

    Examples: gentraj augment gentraj/mujoco/hopper-medium-v0 --model runs/world --steps 100000 --out mine/hopper-v0
              gentraj augment hopper.hdf5 --model runs/world --policy runs/td3bc --steps 100000 --out mine/hopper-v1
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """The dataset to extend, named as in `gentraj train --dataset`; '+' joins several."""


def main(argv: list[str]) -> None:
    print_saved(augment(parse(Augment, argv, "gentraj augment")))
