"""Checks of the contracts of models, policies and samplers, for your own classes; for environments there is
`gymnasium.utils.env_checker.check_env`.

    from gentraj.testing import check_model
    check_model(MyModel(spec))

Each check takes about a second, samples its own data and does not change its argument. It raises an AssertionError
with a message of one line for the first promise that is broken. The project's tests run these checks on everything
that is registered.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from gentraj.agents.policies.actor import Actor
from gentraj.agents.policies.policy import Policy

from .device import device_of
from .diffusion.paths import PATHS, sampling_times
from .diffusion.samplers import Sampler
from .models.model import TrajectoryModel
from .networks.embedding import MIN_ROWS
from .randomness import generator
from .training.step import TrainingStep
from .trajectory import (
    Batch,
    Condition,
    SamplingOptions,
    SupportsLogProb,
    SupportsOODScore,
    TrajectorySpec,
    only_steps,
)

ROUNDING = 1e-4  # relative and absolute: by how much a result may depend on what else is in the batch
M = TypeVar("M", bound=TrajectoryModel | Policy)
FROM_ITS_SEED = "draw all random numbers from a generator that only the seed determines"


def check_model(model: TrajectoryModel) -> None:
    """Checks a `TrajectoryModel`, and also `SupportsLogProb` and `SupportsOODScore` where the model has them.

    - Samples have the shape (B, N, H, D) and are finite, and conditioned entries are returned bit for bit.
    - A sample depends on its seed and its condition only: not on the other samples, nor on torch's global generator.
      At temperature 0 it does not depend on the seed either.
    - An observer sees the sample last. A condition of another `TrajectorySpec` raises a ValueError.
    - An update returns finite, detached metrics, changes the samples, and is determined by the generator.

    Raises an AssertionError for the first promise that is broken.
    """
    _check_known_entries(model)
    _check_seeds(model)
    _check_options(model)
    _check_update(model)


def _check_known_entries(model: TrajectoryModel) -> None:
    spec = model.spec
    free, start = Condition.empty(spec, 2), torch.linspace(0.1, 0.5, spec.obs_dim)
    prefix = torch.full((2, spec.horizon, spec.dim), 0.33)
    kinds = {"nothing": free, "the start": free.with_obs(0, start),
             "the start and one entry of a goal": free.with_obs(0, start).with_obs(-1, torch.tensor([0.7]), dims=(0,)),
             "the first timesteps": free.with_prefix(prefix[:, : max(1, spec.horizon // 2)]),
             "everything": free.with_prefix(prefix)}
    if spec.act_dim:
        kinds["all actions"] = free.with_first_acts(torch.full((2, spec.horizon, spec.act_dim), 0.6))
    for name, condition in kinds.items():
        condition = condition.to(device_of(model))
        x = model.sample(condition, 3, seed=1)
        expected = 2, 3, spec.horizon, spec.dim
        assert x.shape == expected and torch.isfinite(x).all(), (
            f"a sample conditioned on {name} has the shape {tuple(x.shape)}, or is not finite; {expected} is expected")
        known = condition.mask_BHD[:, None].expand_as(x)
        assert torch.equal(x[known], condition.values_BHD[:, None].expand_as(x)[known]), (
            f"a sample conditioned on {name} changes the given entries; set them at the end, bit for bit")


def _check_seeds(model: TrajectoryModel) -> None:
    condition, seeds = Condition.empty(model.spec, 2 * MIN_ROWS, device=device_of(model)), list(range(2 * MIN_ROWS))
    many, some = model.sample(condition, seed=seeds), slice(3, 3 + MIN_ROWS)
    assert _close(model.sample(condition[some], seed=seeds[some]), many[some]), (
        "a sample depends on the others of its batch; draw its noise from its own seed, and do not mix samples")
    before = torch.random.get_rng_state()
    torch.rand(1)
    again = model.sample(condition, seed=seeds)
    torch.random.set_rng_state(before)
    assert torch.equal(again, many), f"the same seeds give another sample; {FROM_ITS_SEED}"
    assert not torch.equal(many[0], many[1]), "different seeds give the same sample"
    other = TrajectorySpec(model.spec.obs_dim, model.spec.act_dim, model.spec.horizon + 1)
    _refuses(lambda: model.sample(Condition.empty(other), seed=0),
             f"a condition of {other}, which is not the model's spec,")


def _check_options(model: TrajectoryModel) -> None:
    free, seen = Condition.empty(model.spec, 2, device=device_of(model)), list[Tensor]()
    cold = model.sample(free[:1], 2, seed=[1, 2], options=SamplingOptions(temperature=0.0))
    assert _close(cold[:, 0], cold[:, 1]), (
        "samples of two seeds differ at temperature 0; scale all noise by options.temperature")
    options = SamplingOptions(steps=only_steps(model) or 1)
    x = model.sample(free, 2, options=options, observe=lambda x, t: seen.append(x), seed=0)
    assert seen and _close(seen[-1], x.flatten(0, 1)), (
        "the last x that `observe` is called with is not the sample, (B * N, H, D) in environment units")
    x = model.sample(free, seed=[1, 2])[:, 0]
    if isinstance(model, SupportsOODScore):
        score = model.ood_score(x, free, [0, 1])
        assert score.shape == x.shape[:2] and (score >= 0).all(), (
            f"ood_score is {score.tolist()}; one number of at least 0 for each timestep, (R, H), is expected")
    if isinstance(model, SupportsLogProb):
        log_prob = model.log_prob(x, free, exact=False, probes=1, steps=2)
        assert log_prob.shape == x.shape[:1] and torch.isfinite(log_prob).all(), (
            f"log_prob is {log_prob.tolist()}; one finite number for each trajectory, (R,), is expected")


def _check_update(model: TrajectoryModel) -> None:
    free = Condition.empty(model.spec, 2, device=device_of(model))
    first, second = (each.sample(free, 2, seed=0)
                     for each in _updated_twice(model, _batch(model.spec).to(device_of(model))))
    assert torch.equal(first, second), f"the same update of the same model gives another model; {FROM_ITS_SEED}"
    assert not torch.equal(first, model.sample(free, 2, seed=0)), "an update does not change the samples"


def _batch(spec: TrajectorySpec, goals: int = 0) -> Batch:
    H, rng = spec.horizon, generator(3)
    x = torch.randn(16, H, spec.dim, generator=rng)
    return Batch(x, torch.ones_like(x, dtype=torch.bool), torch.randn(16, goals, generator=rng) if goals else None,
                 torch.randn(16, H, generator=rng), torch.arange(16)[:, None].expand(-1, H) % 4 == 0,
                 episode_B=torch.arange(16), past_BPD=spec.beginning(x[:, 0, : spec.obs_dim]) if spec.past else None)


def _updated_twice(made: M, batch: Batch) -> list[M]:
    """Two copies after the same update, whose metrics are checked."""
    copies = [copy.deepcopy(made) for _ in range(2)]
    for each in copies:
        _check_metrics(each.update(TrainingStep(batch, each.optimizers(), generator(0))))
    return copies


def _check_metrics(metrics: Mapping[str, Tensor]) -> None:
    assert metrics, "update returns no metrics; a dict of numbers, such as the loss, is expected"
    for name, value in metrics.items():
        number = torch.as_tensor(value)
        assert number.ndim == 0 and not number.requires_grad and torch.isfinite(number), (
            f"the metric {name} is {value}; one finite number, detached, is expected")


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=ROUNDING, atol=ROUNDING)


def check_policy(policy: Policy) -> None:
    """Checks a `Policy`, and how an `Actor` acts with it.

    - `sample_actions` returns a chunk of K normalised actions, within [-1, 1], for each state, and `sample_after` one
      that begins with the actions that it is given.
    - Actions are inside the action space, and depend on the observation, its goal and its seed only: not on the other
      environments.
    - An update returns finite, detached metrics, and is determined by the generator.

    Raises an AssertionError for the first promise that is broken.
    """
    spec, goals = policy.spec, policy.scales.context_dim
    obs_BO = torch.randn(16, spec.obs_dim, generator=generator(1))
    goal_BG = torch.randn(16, goals, generator=generator(2)) if goals else None
    state_BS, seeds = policy.scales.state(spec.seen(obs_BO), goal_BG), list(range(16))
    with torch.no_grad():
        chunk_BKA = policy.sample_actions(state_BS, seeds)
    expected = 16, policy.chunk, spec.act_dim
    assert chunk_BKA.shape == expected and (chunk_BKA.abs() <= 1).all(), (
        f"sample_actions has the shape {tuple(chunk_BKA.shape)}, or numbers outside [-1, 1], the range of normalised "
        f"actions; {expected} is expected")
    for L in range(1, policy.config.max_delay + 1):
        with torch.no_grad():
            after_BKA = policy.sample_after(chunk_BKA[:, :L], state_BS, seeds[::-1])
        assert after_BKA.shape == expected and _close(after_BKA[:, :L], chunk_BKA[:, :L]), (
            f"sample_after has the shape {tuple(after_BKA.shape)}, or does not begin with the {L} given actions")

    def act(rows: slice, high: float = 1.0) -> Tensor:
        high_A = np.full(spec.act_dim, high, np.float32)
        actor = Actor(policy, -high_A, high_A)
        actor.pad_batches()
        actor.reset(seeds[rows])
        return torch.stack([actor.act(obs_BO[rows], None if goal_BG is None else goal_BG[rows])
                            for _ in range(policy.execute)])

    together = act(slice(None))
    assert torch.equal(act(slice(None)), together), f"the same seeds give other actions; {FROM_ITS_SEED}"
    assert _close(act(slice(3, 5)), together[:, 3:5]), "an action depends on the other environments of its batch"
    assert (act(slice(None), 0.01).abs() <= 0.01).all(), "an action is outside the action space"
    copies = _updated_twice(policy, _batch(spec, goals).to(policy.device))
    for a, b in zip(*(each.parameters() for each in copies), strict=True):
        assert torch.equal(a, b), f"the same update of the same policy gives other weights; {FROM_ITS_SEED}"


def check_sampler(sampler: Sampler, paths: Iterable[str] = ("vp-cosine", "ve", "flow")) -> None:
    """Checks a sampler of diffusion models on noise `paths` (names of `gentraj.diffusion.paths.PATHS`).

    - With the exact denoiser of a normal distribution, samples have the right mean and standard deviation.
    - A single step returns a finite sample, and samples have the dtype of x.
    - An observer sees the x of every step, and the sample last. A sample does not depend on the rest of its batch.
    - No noise is drawn where eta is 0. An eta outside [0, 1] and times that do not fall to 0 raise a ValueError.

    Raises an AssertionError for the first promise that is broken.
    """
    for name in paths:
        _check_sampler_on(sampler, name)
    path, x = PATHS["flow"](), torch.zeros(2, 1, 1)
    noise = list[int]()
    times = sampling_times(path, 3)
    sampler(lambda x, t: x, x, times, path, lambda: noise.append(1) or x, eta=0.0)
    assert not noise, "noise is drawn with eta 0"
    _refuses(lambda: sampler(lambda x, t: x, x, times, path, lambda: x, eta=1.1), "eta 1.1")
    _refuses(lambda: sampler(lambda x, t: x, x, times.flip(0), path, lambda: x), "times that do not fall to 0")


def _check_sampler_on(sampler: Sampler, name: str) -> None:
    path = PATHS[name]()
    mean = 0.7
    std = 0.5
    seen = list[Tensor]()

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        """E[x0 | x] of N(mean, std^2)."""
        alpha, sigma = path.alpha(t)[:, None, None], path.sigma(t)[:, None, None]
        gain = alpha * std**2 / ((alpha * std) ** 2 + sigma**2)
        return mean + gain * (x - alpha * mean)

    def sample(steps: int, part: slice = slice(None)) -> Tensor:
        times, noise = sampling_times(path, steps), generator(steps)
        seen.clear()

        def normal() -> Tensor:
            return torch.randn(2000, 1, 1, generator=noise)[part]

        return sampler(denoise, path.sigma(times[:1]) * normal(), times, path, normal,
                       observe=lambda x, t: seen.append(x))

    x = sample(100)
    assert x.shape == (2000, 1, 1) and x.dtype == torch.float32, (
        f"{name}: the sample is {tuple(x.shape)}, {x.dtype}; (2000, 1, 1) and torch.float32, as x is, are expected")
    assert abs(x.mean() - mean) < 0.06 and abs(x.std() - std) < 0.06, (
        f"{name}: samples of a normal distribution of mean {mean} and standard deviation {std} have mean "
        f"{x.mean():.3f} and standard deviation {x.std():.3f}")
    assert torch.isfinite(sample(1)).all(), f"{name}: a sample in one step is not finite"
    assert _close(sample(5, slice(3, 5)), sample(5)[3:5]), f"{name}: a sample depends on the others of its batch"
    x = sample(4)
    assert len(seen) == 4 and torch.equal(seen[-1], x), (
        f"{name}: the observer saw {len(seen)} of 4 steps, or something else than the sample last")


def _refuses(call: Callable[[], object], what: str) -> None:
    """Raises an AssertionError unless the call raises a ValueError."""
    try:
        call()
    except ValueError:
        return
    raise AssertionError(f"{what} is accepted; raise a ValueError that says what was expected")
