"""The errors of a world model in open loop, on windows of data that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..trajectory import Batch
from .facts import rewards_and_ends
from .model import Imagined, WorldModel

DIAGRAM_BINS = 10


class OpenLoop(NamedTuple):
    """Windows of T real steps, and the rollouts of a world model from their first observations with their actions.

    `real_BT` is false for padding. `mean` is the rollout without noise and `sampled` one with noise; both are on the
    CPU, in environment units.
    """

    obs_BTO: Tensor
    reward_BT: Tensor
    ended_BT: Tensor
    real_BT: Tensor
    start_BO: Tensor
    mean: Imagined
    sampled: Imagined

    @classmethod
    def of(cls, world: WorldModel, batch: Batch, seeds: Sequence[int]) -> OpenLoop:
        """Rolls `world` out on the windows of `batch`, which may have any horizon, with a seed for each."""
        obs_BHO, act_BHA = world.spec.split(batch.x_BHD)
        real_BT = batch.mask_BHD[:, 1:, 0]
        mean, sampled = (Imagined(*(x.cpu() for x in world.imagine(
            obs_BHO[:, 0], act_BHA[:, :-1], batch.context_BC, seeds=seeds, temperature=temperature, real_BT=real_BT)))
            for temperature in (0.0, 1.0))
        return cls(obs_BHO[:, 1:], *rewards_and_ends(batch), real_BT, obs_BHO[:, 0], mean, sampled)

    def errors(self, dims: Sequence[int], scale_O: Tensor | None = None) -> dict[str, list[float]]:
        """The root mean square errors (T,) of the entries `dims` of the observation after each step.

        They are in units of `scale_O` (environment units by default), for three predictions: the "mean", a "sample"
        with noise, and "nothing changes", which repeats the first observation.
        """
        scale_O = torch.ones_like(self.obs_BTO[0, 0]) if scale_O is None else scale_O.cpu()
        guesses = {"mean": self.mean.obs_BTO, "sample": self.sampled.obs_BTO,
                   "nothing changes": self.start_BO[:, None].expand_as(self.obs_BTO)}
        squared = {name: (((guess - self.obs_BTO) / scale_O)[..., list(dims)] ** 2).mean(-1)
                   for name, guess in guesses.items()}
        return {name: self._average(error_BT).sqrt().tolist() for name, error_BT in squared.items()}

    def rewards(self) -> dict[str, list[float]]:
        """The root mean square errors (T,) of each step's reward, for the model's mean and the average reward."""
        average = (self.reward_BT * self.real_BT).sum() / self.real_BT.sum()
        guesses = {"mean": self.mean.reward_BT, "the average": average.expand_as(self.reward_BT)}
        return {name: self._average((guess - self.reward_BT) ** 2).sqrt().tolist() for name, guess in guesses.items()}

    def calibration(self, scale_O: Tensor) -> dict[str, list[float]]:
        """The calibration of the first step: "expected" and "found" root mean square errors of each bin.

        Steps are sorted by uncertainty into bins of equal size. Errors are in units of `scale_O` (O,), as
        `WorldFacts.step_scale`.
        """
        error_B = (((self.mean.obs_BTO - self.obs_BTO)[:, 0] / scale_O.cpu()) ** 2).mean(-1)[self.real_BT[:, 0]]
        uncertainty_B = self.mean.uncertainty_BT[:, 0][self.real_BT[:, 0]]
        parts = [part for part in uncertainty_B.argsort().tensor_split(DIAGRAM_BINS) if len(part)]
        return {"expected": [float((uncertainty_B[part] ** 2).mean().sqrt()) for part in parts],
                "found": [float(error_B[part].mean().sqrt()) for part in parts]}

    def ends(self) -> dict[str, Any]:
        """Counts the "steps", those that "ended" an episode by termination, those that the model "predicted" to end
        it, and those for which "both" hold."""
        predicted_BT, ended_BT = (self.mean.end_BT > 0.5) & self.real_BT, self.ended_BT & self.real_BT
        counted = {"steps": self.real_BT, "ended": ended_BT, "predicted": predicted_BT, "both": predicted_BT & ended_BT}
        return {name: int(step_BT.sum()) for name, step_BT in counted.items()}

    def _average(self, x_BT: Tensor) -> Tensor:
        """(T,) the mean over the windows that have each step; 0 where no window does."""
        return torch.where(self.real_BT, x_BT, 0).sum(0) / self.real_BT.sum(0).clamp(min=1)
