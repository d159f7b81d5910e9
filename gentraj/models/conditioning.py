"""What a model is conditioned on: the mix of conditions in training, and contexts and known entries for its network."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt
from torch import Tensor, nn

from ..config import Fraction, settings
from ..device import constant, to_device, to_device_together
from ..normalize import Normalizer
from ..trajectory import TrajectorySpec

LAST_FRACTION = 1 - 2**-20  # the fraction u that `later_row` maps to the last timestep


@settings
class ConditionMix:
    """The probability that each kind of entry is known, for each trajectory and each kind on its own."""

    start: Fraction = 1.0
    """Probability that the first observation is known."""
    goal: Fraction = 0.85
    """Probability that the goal's entries are known at one timestep."""
    goal_at: Literal["any", "end"] = "any"
    """Timestep of the goal: uniform over the real timesteps after the first, or always the last real one."""
    waypoint: Fraction = 0.0
    """Probability that the goal's entries are known at another timestep, uniform over the real ones after the first."""
    prefix: Fraction = 0.0
    """Probability that all entries up to a random time are known; an action comes half a timestep after its state."""
    actions: Fraction = 0.0
    """Probability that all actions are known; with a known start the model is then a world model."""
    observations: Fraction = 0.0
    """Probability that all observations are known; the model is then inverse dynamics."""
    first_actions: NonNegativeInt = 0
    """The largest number of first actions that are known. For each trajectory, their number is drawn from 0 to it."""
    goal_dims: tuple[int, ...] = ()
    """Indices of the observation's entries that make up a goal; empty for all."""

    def sample(self, spec: TrajectorySpec, real_BHD: Tensor, generator: torch.Generator) -> Tensor:
        """Samples which of the real entries (B, H, D) are known: bool (B, H, D) on their device. `generator` is
        on the CPU, and nothing is drawn from it where all trajectories know the same entries.

        Raises ValueError for windows of another shape than those of `spec`, and for `goal_dims` that an observation of
        `spec` does not have.
        """
        spec.check_windows(real_BHD.shape)
        device = real_BHD.device
        known = known_to_all(self, spec, device)
        if known is None:
            known = self._drawn(spec, real_BHD[..., 0].sum(1), generator)
        if self.first_actions:
            count_B = to_device(torch.randint(self.first_actions + 1, (len(real_BHD),), generator=generator), device)
            first_BH = torch.arange(spec.horizon, device=device) < count_B[:, None]
            known = known | _entries(spec, first_BH, range(spec.obs_dim, spec.dim))
        return known & real_BHD

    def _drawn(self, spec: TrajectorySpec, length_B: Tensor, generator: torch.Generator) -> Tensor:
        """(B, H, D) known entries by chance, for trajectories of these lengths."""
        uniform = to_device_together([torch.rand(len(length_B), generator=generator) for _ in range(2 * len(KINDS))],
                                     length_B.device)
        known = torch.zeros(len(length_B), spec.horizon, spec.dim, dtype=torch.bool, device=length_B.device)
        probability = vars(self)
        for (kind, mask), share_B, u_B in zip(KINDS.items(), uniform[::2], uniform[1::2], strict=True):
            if probability[kind] == 0:
                continue
            if kind == "goal" and self.goal_at == "end":
                u_B = torch.full_like(u_B, LAST_FRACTION)
            chosen_B = share_B < probability[kind]
            known |= mask(spec, self.goal_dims, length_B, u_B) & chosen_B[:, None, None]
        return known


@lru_cache(256)
def known_to_all(mix: ConditionMix, spec: TrajectorySpec, device: torch.device) -> Tensor | None:
    """(H, D) the entries that are known in every trajectory, but for its first actions; None if that is left to chance.

    Raises ValueError for `goal_dims` that an observation of `spec` does not have.
    """
    if not all(0 <= i < spec.obs_dim for i in mix.goal_dims):
        raise ValueError(f"ConditionMix.goal_dims are {mix.goal_dims}; entries of an observation, 0 to "
                         f"{spec.obs_dim - 1}, are expected")
    probability = vars(mix)
    if any(0 < probability[kind] < 1 or (probability[kind] and kind in AT_RANDOM_TIMES) for kind in KINDS):
        return None
    with torch.inference_mode(False):
        none_1 = torch.zeros(1, device=device)
        known = torch.zeros(1, spec.horizon, spec.dim, dtype=torch.bool, device=device)
        for kind in KINDS:
            if probability[kind]:
                known |= KINDS[kind](spec, mix.goal_dims, none_1, none_1)
        return known[0]


def later_row(length_B: Tensor, u_B: Tensor) -> Tensor:
    """Timesteps (B,) uniform over 1 .. length - 1 for u uniform in [0, 1); 1 where the length is 1."""
    return 1 + (u_B * (length_B - 1)).long()


def _entries(spec: TrajectorySpec, timesteps_BH: Tensor, dims: tuple[int, ...] | range) -> Tensor:
    column_D = constant(tuple(dim in dims for dim in range(spec.dim)), timesteps_BH.device, torch.bool)
    return timesteps_BH[..., None] & column_D


def _start(spec: TrajectorySpec, dims: tuple[int, ...], length_B: Tensor, u_B: Tensor) -> Tensor:
    timesteps_BH = (torch.arange(spec.horizon, device=u_B.device) == 0).expand(len(length_B), -1)
    return _entries(spec, timesteps_BH, range(spec.obs_dim))


def _goal(spec: TrajectorySpec, dims: tuple[int, ...], length_B: Tensor, u_B: Tensor) -> Tensor:
    timesteps_BH = torch.arange(spec.horizon, device=u_B.device) == later_row(length_B, u_B)[:, None]
    return _entries(spec, timesteps_BH, dims or range(spec.obs_dim))


def _prefix(spec: TrajectorySpec, dims: tuple[int, ...], length_B: Tensor, u_B: Tensor) -> Tensor:
    after_D = 0.5 * (torch.arange(spec.dim, device=u_B.device) >= spec.obs_dim)
    return torch.arange(spec.horizon, device=u_B.device)[:, None] + after_D < (u_B * length_B)[:, None, None]


def _actions(spec: TrajectorySpec, dims: tuple[int, ...], length_B: Tensor, u_B: Tensor) -> Tensor:
    return torch.arange(spec.dim, device=u_B.device) >= spec.obs_dim


def _observations(spec: TrajectorySpec, dims: tuple[int, ...], length_B: Tensor, u_B: Tensor) -> Tensor:
    return torch.arange(spec.dim, device=u_B.device) < spec.obs_dim


KINDS = {"start": _start, "goal": _goal, "waypoint": _goal, "prefix": _prefix, "actions": _actions,
         "observations": _observations}
AT_RANDOM_TIMES = ("goal", "waypoint", "prefix")


def encode_context(context_BC: Tensor | None, normalizer: Normalizer | None,
                   kept_B: Tensor | None = None) -> Tensor | None:
    """Encodes a context for a network: (B, C + 1), the normalised context and a 1, or zeros if there is no context.

    A context is also replaced by zeros where `kept_B` is false. Returns None for a model without contexts
    (`normalizer` is None). Raises ValueError for a context that the model cannot use.
    """
    if normalizer is None:
        if context_BC is not None:
            raise ValueError("a context was given to a model that was trained without one; leave it out, or train "
                             "a model with contexts (context.kinds)")
        return None
    width = len(normalizer.shift_D)
    if context_BC is None:
        return normalizer.shift_D.new_zeros(1, width + 1)
    if context_BC.ndim != 2 or context_BC.shape[1] != width:
        raise ValueError(f"a context of width {tuple(context_BC.shape[1:])} was given; {width} numbers for each "
                         "trajectory are expected")
    encoded = F.pad(normalizer.normalize(context_BC), (0, 1), value=1.0)
    if kept_B is not None:
        encoded = encoded * to_device(kept_B, encoded.device)[:, None]
    return encoded


def encoded_width(normalizer: Normalizer | None) -> int:
    """The width of an encoded context: C + 1, or 0 for a model without contexts."""
    if normalizer is None:
        return 0
    return len(normalizer.shift_D) + 1


def interpolate(values_RHD: Tensor, known_RHD: Tensor) -> Tensor:
    """Interpolates the known entries linearly in time; generators predict the difference from this: (R, H, D).

    Each column is linear between two known entries, constant before the first and after the last, and 0 if none is
    known.
    """
    if values_RHD.shape[1] == 1:  # a policy's action
        return torch.where(known_RHD, values_RHD, 0)
    time_H1 = torch.arange(values_RHD.shape[1], device=values_RHD.device)[:, None]
    last, beyond = len(time_H1) - 1, len(time_H1)
    before = _running_max(torch.where(known_RHD, time_H1, -1))
    after = -_running_max(torch.where(known_RHD, -time_H1, -beyond).flip(1)).flip(1)
    before, after = torch.where(before < 0, after, before), torch.where(after == beyond, before, after)
    low, high = (values_RHD.gather(1, index.clamp(0, last)) for index in (before, after))
    fraction = (time_H1 - before) / (after - before).clamp(min=1)
    return torch.where(known_RHD.any(1, keepdim=True), torch.lerp(low, high, fraction.to(low.dtype)), 0)


def around_interpolation(network: nn.Module, x: Tensor, t_R: Tensor, values: Tensor, known: Tensor,
                         context: Tensor | None) -> Tensor:
    """Trajectories (R, H, D) from noise or a guess x by a network that returns the difference from `interpolate`.

    Everything is in normalised units; `values` may hold anything at the unknown entries.
    """
    interpolated = interpolate(values, known)
    x = interpolated + network(torch.where(known, values, x), interpolated, known, t_R, context)
    return torch.where(known, values, x)


def _running_max(x_RHD: Tensor) -> Tensor:
    """The running maximum over time, by doubling the reach in each round: ONNX has no cumulative maximum."""
    step = 1
    while step < x_RHD.shape[1]:
        x_RHD = torch.cat([x_RHD[:, :step], torch.maximum(x_RHD[:, step:], x_RHD[:, :-step])], 1)
        step *= 2
    return x_RHD
