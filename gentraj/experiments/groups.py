"""What the runs of a group have in common: windows of the data, conditions to sample under, and the ways data go."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from scipy.cluster.vq import kmeans
from torch import Tensor

from ..data import Windows
from ..files import write_file
from ..metrics import mode_shares, modes_covered, nearest_mode
from ..randomness import fold, generator
from ..runs.folder import DataFacts
from ..trajectory import Batch, Condition, TrajectorySpec

WINDOWS = 4096  # drawn of the data of a preset; runs that are there bring their reference windows
FORKS, MODES = 3, 5  # starts that are looked at, and ways that are told apart at each
GUESSES = 20
NEAR = (32, 256)  # least and most windows that start about the same place: a sixteenth of all, within this


class Fork(NamedTuple):
    """Windows of data that start about the same place, and the ways they go from there."""

    x_MHD: Tensor
    centre_KF: Tensor
    mode_M: Tensor
    """The way that each window goes."""

    def shares(self, mode_R: Tensor) -> list[float]:
        return mode_shares(mode_R, len(self.centre_KF)).tolist()


@dataclass(frozen=True)
class Group:
    """`dims` are the entries of an observation that are drawn, and looked at where ways part."""

    name: str
    folder: Path
    dims: tuple[int, int]

    @property
    def path(self) -> Path:
        return self.folder / "windows.safetensors"

    @cached_property
    def x_NHD(self) -> Tensor:
        """Windows of the data without padding, in environment units."""
        return safetensors.torch.load(self.path.read_bytes())["x"]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def keep(self, windows: Batch) -> str:
        """Writes the windows without padding, and returns their hash. Raises ValueError where there are hardly any."""
        x = windows.x_BHD[windows.mask_BHD.flatten(1).all(1)].cpu()
        if len(x) < NEAR[0]:
            raise ValueError(f"{self.name}: {len(x)} of {len(windows.x_BHD)} windows of the data are without padding; "
                             f"at least {NEAR[0]} are needed to compare with: train with a shorter horizon or stride")
        write_file(self.path, safetensors.torch.save({"x": x.contiguous()}))
        return self.sha256

    def places(self, x: Tensor) -> Tensor:
        """(R, F) where trajectories (R, H, D) are at a third, at two thirds and at the end of their way."""
        last = x.shape[1] - 1
        return x[:, [last // 3, 2 * last // 3, last]][..., list(self.dims)].flatten(1)

    def modes(self, fork: Fork, x_RHD: Tensor) -> list[float]:
        """The share of these trajectories that goes each way of the fork."""
        return fork.shares(nearest_mode(self.places(x_RHD.cpu()), fork.centre_KF))

    @cached_property
    def forks(self) -> list[Fork]:
        """The starts from which the data go to the most different places. A start is near others in all of its entries.

        Ways are clusters of `places` by k-means (Lloyd 1982), the best of `GUESSES`; the most common comes first.
        """
        x, places = self.x_NHD, self.places(self.x_NHD)
        start = x[:, 0] / x.flatten(0, 1).std(0).clamp(min=1e-6)
        size = min(len(x), max(NEAR[0], min(NEAR[1], len(x) // 16)))
        anchors = torch.linspace(0, len(x) - 1, min(len(x), 64)).long()
        near = torch.cdist(start[anchors], start).topk(size, largest=False).indices
        forks, seen = [], set()
        for i in places[near].var(1).sum(1).argsort(descending=True).tolist():
            rows = set(near[i].tolist())
            if len(rows & seen) <= size // 10 and len(forks) < FORKS:
                seen |= rows
                forks.append(self._fork(near[i]))
        return forks

    def _fork(self, near_M: Tensor) -> Fork:
        x = self.x_NHD[near_M]
        places = self.places(x)
        guesses = [places[torch.randperm(len(places), generator=generator(i))[:MODES]] for i in range(GUESSES)]
        found = [kmeans(places.double().numpy(), guess.double().numpy()) for guess in guesses]
        centre_KF = torch.from_numpy(min(found, key=lambda centres_and_error: centres_and_error[1])[0])
        common = mode_shares(nearest_mode(places, centre_KF), len(centre_KF)).argsort(descending=True)
        return Fork(x, centre_KF[common], nearest_mode(places, centre_KF[common]))

    def data_variation(self) -> float:
        """Mean total variation between the shares of one half of the data and those of the other: what chance makes."""
        return float(np.mean([modes_covered(torch.tensor(fork.shares(fork.mode_M[::2])),
                                            torch.tensor(fork.shares(fork.mode_M[1::2]))).total_variation
                              for fork in self.forks]))

    def shown(self, number: int) -> Tensor:
        """(number, H, D) windows whose starts and ends lie far from each other: each the farthest from those before."""
        places = self.x_NHD[:, [0, -1]][..., list(self.dims)].flatten(1)
        chosen = [int((places[:, : len(self.dims)] - places[:, len(self.dims) :]).norm(dim=1).argmax())]
        while len(chosen) < min(number, len(places)):
            chosen.append(int(torch.cdist(places, places[chosen]).amin(1).argmax()))
        return self.x_NHD[chosen]


def plane(data: DataFacts) -> tuple[int, int]:
    """The two entries of an observation that are drawn: the first of a goal, else the first there are; or one twice."""
    entries = list(data.goal_dims or range(data.obs_dim))[:2]
    return entries[0], entries[-1]


def draw_windows(windows: Windows) -> Batch:
    """What a group keeps of a dataset."""
    return windows.batch(0, fold(0), WINDOWS)


def conditions(spec: TrajectorySpec, x_BHD: Tensor, goal_dims: tuple[int, ...] = ()) -> Condition:
    """The first observations of these windows known, and with `goal_dims` those entries of their last ones."""
    obs = spec.split(x_BHD)[0]
    start = Condition.unknown(spec, len(x_BHD), device=x_BHD.device).with_obs(0, obs[:, 0])
    return start.with_obs(-1, obs[:, -1, list(goal_dims)], goal_dims) if goal_dims else start
