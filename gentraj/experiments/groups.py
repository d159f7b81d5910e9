"""What the runs of a group share: windows of the data, conditions to sample under, and forks of the data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from scipy.cluster.vq import kmeans
from torch import Tensor

from ..files import write_file
from ..metrics import mode_shares, modes_covered, nearest_mode
from ..randomness import generator
from ..runs.run import DataFacts, Run
from ..trajectory import Batch, Condition

FORKS, MODES = 3, 5  # number of forks, and of ways (clusters) at each fork
GUESSES = 20  # initialisations of k-means
NEAR = (32, 256)  # bounds on the number of windows at a fork, which is a sixteenth of all windows within these


class Fork(NamedTuple):
    """Windows of data that start close to each other, and the ways (clusters) that they go from there."""

    row_M: Tensor
    """The rows of these windows in the group's."""
    x_MHD: Tensor
    centre_KF: Tensor
    mode_M: Tensor
    """The way that each window goes."""

    def shares(self, mode_R: Tensor) -> list[float]:
        """The share of each way among trajectories that go the ways `mode_R`."""
        return mode_shares(mode_R, len(self.centre_KF)).tolist()


@dataclass(frozen=True)
class Group:
    """Runs with the same data, timesteps, contexts and environment. `dims` are the one or two entries of an observation
    in figures and forks."""

    name: str
    folder: Path
    dims: tuple[int, ...]
    obs_dim: int | None = None
    """The width of an observation; None for trajectories without actions."""

    @classmethod
    def of(cls, name: str, folder: Path, data: DataFacts) -> Group:
        """The group of runs with these data, of which the first two entries of a goal, or else of all, are drawn."""
        return cls(name, folder, tuple(data.goal_dims or range(data.obs_dim))[:2], data.obs_dim)

    @property
    def path(self) -> Path:
        return self.folder / "windows.safetensors"

    @cached_property
    def windows(self) -> dict[str, Tensor]:
        """The stored windows: "x", and "context" if the runs are conditioned on contexts."""
        return safetensors.torch.load(self.path.read_bytes())

    @property
    def x_NHD(self) -> Tensor:
        """Windows of the data without padding, in environment units."""
        return self.windows["x"]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def keep(self, windows: Batch, *, few: bool = False) -> str:
        """Stores the windows without padding and returns their hash. Raises ValueError if there are too few to compare
        with, unless `few` are enough, as for runs that plan nothing."""
        whole_B = windows.mask_BHD.flatten(1).all(1)
        x = windows.x_BHD[whole_B].cpu()
        if len(x) < NEAR[0] and not few:
            raise ValueError(f"{self.name}: {len(x)} of {len(windows.x_BHD)} windows of the data are without padding; "
                             f"at least {NEAR[0]} are needed to compare with: train with a shorter horizon or stride")
        stored = {"x": x.contiguous()}
        if windows.context_BC is not None:
            stored["context"] = windows.context_BC[whole_B].cpu().contiguous()
        write_file(self.path, safetensors.torch.save(stored))
        return self.sha256

    def conditions(self, run: Run, rows: Tensor | slice, goal_dims: tuple[int, ...] = ()) -> Condition:
        """Conditions on the first observations and the contexts of these windows, and on the entries `goal_dims` of
        their last observations."""
        spec = run.model.spec
        obs, _ = spec.split(self.x_NHD[rows].to(run.device))
        start = Condition.empty(spec, len(obs), device=obs.device).with_obs(0, obs[:, 0])
        if "context" in self.windows:
            start = replace(start, context_BC=self.windows["context"][rows].to(run.device))
        if goal_dims:
            start = start.with_obs(-1, obs[:, -1, list(goal_dims)], goal_dims)
        return start

    def places(self, x: Tensor) -> Tensor:
        """(R, F) positions of trajectories (R, H, D) after a third, after two thirds and at their end."""
        last = x.shape[1] - 1
        return x[:, [last // 3, 2 * last // 3, last]][..., list(self.dims)].flatten(1)

    def modes(self, fork: Fork, x_RHD: Tensor) -> list[float]:
        """The share of the trajectories (R, H, D) that goes each way of the fork."""
        return fork.shares(nearest_mode(self.places(x_RHD.cpu()), fork.centre_KF))

    @cached_property
    def forks(self) -> list[Fork]:
        """The starts from which the data go to the most different places; starts are close in all entries of their
        observation.

        The ways are clusters of `places` by k-means (Lloyd 1982) with the best of `GUESSES` initialisations; the most
        common way comes first.
        """
        x, places = self.x_NHD, self.places(self.x_NHD)
        start = (x[:, 0] / x.flatten(0, 1).std(0).clamp(min=1e-6))[:, : self.obs_dim]
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
        clusterings = [kmeans(places.double().numpy(), guess.double().numpy()) for guess in guesses]
        centre_KF = torch.from_numpy(min(clusterings, key=lambda centres_and_error: centres_and_error[1])[0])
        common = mode_shares(nearest_mode(places, centre_KF), len(centre_KF)).argsort(descending=True)
        return Fork(near_M, x, centre_KF[common], nearest_mode(places, centre_KF[common]))

    def data_variation(self) -> float:
        """Mean total variation between the shares in two halves of the data, which is due to chance."""
        return float(np.mean([modes_covered(torch.tensor(fork.shares(fork.mode_M[::2])),
                                            torch.tensor(fork.shares(fork.mode_M[1::2]))).total_variation
                              for fork in self.forks]))

    def shown(self, number: int) -> Tensor:
        """(number,) the rows of windows with distant starts and ends: each is the farthest from those before it."""
        places = self.x_NHD[:, [0, -1]][..., list(self.dims)].flatten(1)
        chosen = [int((places[:, : len(self.dims)] - places[:, len(self.dims) :]).norm(dim=1).argmax())]
        while len(chosen) < min(number, len(places)):
            chosen.append(int(torch.cdist(places, places[chosen]).amin(1).argmax()))
        return torch.tensor(chosen)
