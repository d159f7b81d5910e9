"""How good a world model is: its open loop beside data that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ..trajectory import Batch
from .model import Imagined, WorldModel

BINS = 10  # of the calibration's diagram


class OpenLoop(NamedTuple):
    """Windows of T steps, what was imagined of their first observations and their actions, and what was real."""

    obs_BTO: Tensor
    reward_BT: Tensor
    ended_BT: Tensor
    real_BT: Tensor
    start_BO: Tensor
    mean: Imagined
    sampled: Imagined

    @classmethod
    def of(cls, world: WorldModel, batch: Batch, seeds: Sequence[int]) -> OpenLoop:
        """`batch` are windows of any number of rows."""
        obs_BHO, act_BHA = world.spec.split(batch.x_BHD)
        real_BT = batch.mask_BHD[:, 1:, 0]
        imagine = lambda temperature: Imagined(*(x.cpu() for x in world.imagine(  # noqa: E731
            obs_BHO[:, 0], act_BHA[:, :-1], batch.context_BC, seeds=seeds, temperature=temperature, real_BT=real_BT)))
        return cls(obs_BHO[:, 1:], cast(Tensor, batch.reward_BH)[:, :-1], cast(Tensor, batch.terminal_BH)[:, 1:],
                   real_BT, obs_BHO[:, 0], imagine(0.0), imagine(1.0))

    def errors(self, dims: Sequence[int], scale_O: Tensor | None = None) -> dict[str, list[float]]:
        """(T,) root mean square errors of these entries after each step, in their own units or in these: of the mean,
        of a draw, and of saying that nothing changes."""
        scale_O = torch.ones_like(self.obs_BTO[0, 0]) if scale_O is None else scale_O.cpu()
        guesses = {"mean": self.mean.obs_BTO, "draw": self.sampled.obs_BTO,
                   "nothing changes": self.start_BO[:, None].expand_as(self.obs_BTO)}
        wrong = {name: (((guess - self.obs_BTO) / scale_O)[..., list(dims)] ** 2).mean(-1)
                 for name, guess in guesses.items()}
        return {name: self._average(wrong_BT).sqrt().tolist() for name, wrong_BT in wrong.items()}

    def rewards(self) -> dict[str, list[float]]:
        """(T,) root mean square errors of a step's reward: of the mean, and of saying the data's average."""
        usual = (self.reward_BT * self.real_BT).sum() / self.real_BT.sum()
        guesses = {"mean": self.mean.reward_BT, "the average": usual.expand_as(self.reward_BT)}
        return {name: self._average((guess - self.reward_BT) ** 2).sqrt().tolist() for name, guess in guesses.items()}

    def calibration(self, scale_O: Tensor) -> dict[str, list[float]]:
        """Of the first steps, by bins of equally many: what error was expected, and what it was."""
        wrong_B = (((self.mean.obs_BTO - self.obs_BTO)[:, 0] / scale_O.cpu()) ** 2).mean(-1)[self.real_BT[:, 0]]
        uncertainty_B = self.mean.uncertainty_BT[:, 0][self.real_BT[:, 0]]
        parts = [part for part in uncertainty_B.argsort().tensor_split(BINS) if len(part)]
        return {"expected": [float((uncertainty_B[part] ** 2).mean().sqrt()) for part in parts],
                "found": [float(wrong_B[part].mean().sqrt()) for part in parts]}

    def ends(self) -> dict[str, Any]:
        """Of all steps on the way: how many ended an episode for good, how many were said to, and how many both."""
        said_BT, ended_BT = (self.mean.end_BT > 0.5) & self.real_BT, self.ended_BT & self.real_BT
        count = lambda x: int(x.sum())  # noqa: E731
        return {"steps": count(self.real_BT), "ended": count(ended_BT), "said": count(said_BT),
                "both": count(said_BT & ended_BT)}

    def _average(self, x_BT: Tensor) -> Tensor:
        """(T,) over the windows that have this step; 0 where none has."""
        return torch.where(self.real_BT, x_BT, 0).sum(0) / self.real_BT.sum(0).clamp(min=1)
