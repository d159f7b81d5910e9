"""Synthetic episodes of a world model, rolled out together, and the reasons why they end.

They are run as a Gymnasium environment, or as a vector environment that one call of the network steps. Observations
have the format of the real environment, so that an agent trained in the world model can act outside: a dict of
observation, achieved_goal and desired_goal if there are goals, else a vector. `import gentraj.envs` registers
`gentraj/WorldModel-v0`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from pydantic import NonNegativeFloat, PositiveInt

from gentraj.config import settings
from gentraj.trajectory import Agent
from gentraj.worlds.model import WorldModel

GoalReward = Callable[[np.ndarray, np.ndarray, Any], np.ndarray]  # Gymnasium's compute_reward: achieved, desired, info
Reward = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (observations (B, O), goals (B, G)) -> rewards (B,)
TIME_LIMIT = "time limit"
UNCERTAINTY = "uncertainty"
BOUNDS = "left the data's bounds"
NOT_FINITE = "not finite"


@settings
class ImaginedConfig:
    """How a world model's synthetic episodes start, how they end, and what uncertainty costs.

    Raises ValueError for a setting outside its range.
    """

    max_episode_steps: PositiveInt = 1000
    """Time limit of an episode, in steps."""
    max_uncertainty: NonNegativeFloat = 3.0
    """Uncertainty beyond which an episode is truncated, as a multiple of the largest error that is expected on held-out
    data."""
    margin: NonNegativeFloat = 0.1
    """How far an observation may lie outside the range of the data, as a fraction of that range. Farther out, an
    episode is truncated."""
    penalty: NonNegativeFloat = 0.0
    """Reward that each unit of uncertainty costs (MOPO: Yu et al. 2020)."""
    temperature: NonNegativeFloat = 1.0
    """Temperature of the world model's noise; 0 is deterministic."""
    starts: Literal["episodes", "anywhere"] = "episodes"
    """Where an episode starts: at the first observation of an episode of the data, or of a piece of a long one; or
    anywhere in the data. The two are the same if the data have fewer than 32 such starts."""
    termination_cost: NonNegativeFloat | None = None
    """By default an episode is truncated where the model is not trusted, so that an agent may bootstrap from its last
    state. With a number it is terminated, and the number is subtracted from its reward (MOReL: Kidambi et al. 2020):
    0 is too little where rewards are negative, as an agent would gain by ending early."""


def goal_reward(compute_reward: GoalReward | None, goal_dims: Sequence[int]) -> Reward | None:
    """Makes a reward of observations from `compute_reward`; it raises ValueError unless there is one reward per row."""
    if compute_reward is None:
        return None

    def reward(obs_BO: np.ndarray, goal_BG: np.ndarray) -> np.ndarray:
        reward_B = np.asarray(compute_reward(obs_BO[:, list(goal_dims)], goal_BG, {}), np.float32)
        if reward_B.shape != (len(obs_BO),):
            raise ValueError(f"compute_reward gave rewards of shape {reward_B.shape} for {len(obs_BO)} goals; "
                             "a function of a batch of goals that returns one reward for each is expected")
        return reward_B

    return reward


class StepResult(NamedTuple):
    """The results of one step of B episodes, (B,) each."""

    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    why: np.ndarray
    """Why an episode was truncated, or terminated because the model is not trusted; else ""."""
    uncertainty: np.ndarray


class ImaginedEpisodes:
    """`batch` synthetic episodes of a world model, stepped together.

    After each reset and step `obs_BO` (B, O) and `goal_BG` (B, G; G is 0 without goals) are new arrays. `reward`
    computes the rewards; with None the world model predicts them. Raises ValueError for a `batch` below 1.
    """

    def __init__(self, world: WorldModel, batch: int, config: ImaginedConfig, reward: Reward | None = None):
        if batch < 1:
            raise ValueError(f"num_envs is {batch}; give at least 1")
        self.world = world
        self.config = config
        self.reward = reward
        facts = world.facts
        span_O = config.margin * (facts.high_O - facts.low_O)
        self.low_O, self.high_O = (facts.low_O - span_O).cpu().numpy(), (facts.high_O + span_O).cpu().numpy()
        starts_NS = (facts.starts_NS if config.starts == "episodes" else facts.anywhere_NS).cpu().numpy()
        width = len(self.low_O)
        self.starts_NO, after_NX = np.split(starts_NS, [width], 1)
        self.goals_NG, past_NX = np.split(after_NX, [facts.goal_dim], 1)
        self.pasts_NPD = past_NX.reshape(len(past_NX), world.spec.past, world.spec.dim)
        self.uncertainty_limit = config.max_uncertainty * world.calibration.largest
        self.rngs = [np.random.default_rng() for _ in range(batch)]
        self.elapsed_B = np.zeros(batch, int)
        self.obs_BO = self.starts_NO[np.zeros(batch, int)]
        self.goal_BG = self.goals_NG[np.zeros(batch, int)]
        self.past_BPD = self.pasts_NPD[np.zeros(batch, int)]
        """The steps before the present that the world model remembers."""

    def reset(self, mask_B: np.ndarray) -> None:
        """Starts the masked episodes at random starts, each drawn by the episode's own generator."""
        self.obs_BO = self.obs_BO.copy()
        self.goal_BG = self.goal_BG.copy()
        self.past_BPD = self.past_BPD.copy()
        for i in np.flatnonzero(mask_B):
            start = self.rngs[i].integers(len(self.starts_NO))
            self.obs_BO[i] = self.starts_NO[start]
            self.goal_BG[i] = self.goals_NG[start]
            self.past_BPD[i] = self.pasts_NPD[start]
            self.elapsed_B[i] = 0

    def place(self, obs_BO: np.ndarray, goal_BG: np.ndarray, past_BPD: np.ndarray | None = None) -> None:
        """Starts all episodes at the given observations (B, O) and goals (B, G), where G is 0 without goals, after the
        steps `past_BPD`; None is the beginning of an episode."""
        self.obs_BO = np.array(obs_BO, np.float32)
        self.goal_BG = np.array(goal_BG, np.float32)
        if past_BPD is None:
            past_BPD = self.world.spec.beginning(torch.from_numpy(self.obs_BO)).numpy()
        self.past_BPD = np.array(past_BPD, np.float32)
        self.elapsed_B = np.zeros_like(self.elapsed_B)

    def ask(self, agent: Agent) -> np.ndarray:
        """Returns the agent's actions (B, A) in the current states."""
        return agent.act(self.obs_BO, self.goal_BG if self.world.facts.goal_dim else None)

    def _goals(self) -> torch.Tensor | None:
        """(B, G) the goals; None without any."""
        return torch.from_numpy(self.goal_BG) if self.world.facts.goal_dim else None

    def step(self, act_BA: np.ndarray, moving_B: np.ndarray) -> StepResult:
        """Steps the episodes where `moving_B` is true; the others keep their state and get reward 0.

        Raises ValueError for actions of another shape or that are not finite.
        """
        expected = (len(self.obs_BO), self.world.spec.act_dim)
        if np.shape(act_BA) != expected or not np.isfinite(act_BA).all():
            raise ValueError(f"actions of shape {np.shape(act_BA)} were given; finite ones of shape {expected} are "
                             "expected")
        seeds = [int(rng.integers(2**62)) if moving else 0 for rng, moving in zip(self.rngs, moving_B, strict=True)]
        act_B1A = torch.from_numpy(np.asarray(act_BA, np.float32))[:, None]
        made = self.world.imagine(torch.from_numpy(self.obs_BO), act_B1A, self._goals(), seeds=seeds,
                                  temperature=self.config.temperature, past_BPD=torch.from_numpy(self.past_BPD))
        x_B1D = np.concatenate([self.obs_BO, act_B1A[:, 0].numpy()], 1)[:, None]
        self.past_BPD = np.concatenate([self.past_BPD, x_B1D], 1)[:, 1:]
        next_BO = made.obs_BTO[:, 0].cpu().numpy()
        reward_B = made.reward_BT[:, 0].cpu().numpy()
        end_B = made.end_BT[:, 0].cpu().numpy()
        uncertainty_B = made.uncertainty_BT[:, 0].cpu().numpy()
        if self.reward is not None:
            reward_B = self.reward(next_BO, self.goal_BG)
        self.elapsed_B = self.elapsed_B + moving_B
        finite_B = np.isfinite(next_BO).all(1) & np.isfinite(reward_B) & np.isfinite(end_B) & np.isfinite(uncertainty_B)
        self.obs_BO = np.where((moving_B & finite_B)[:, None], next_BO, self.obs_BO)
        terminated_B = moving_B & finite_B & (end_B > 0.5)
        reward_B = np.where(moving_B & finite_B, reward_B, 0)
        cost_B = np.where(moving_B & finite_B, uncertainty_B, 0)
        uncertainty_B = np.where(finite_B, uncertainty_B, np.inf)
        why_B = self.distrust(uncertainty_B)
        why_B[~moving_B] = ""
        reward_B = reward_B - self.config.penalty * cost_B
        if self.config.termination_cost is None:
            why_B[terminated_B] = ""  # a predicted end is trusted
        else:
            terminated_B |= why_B != ""
            reward_B = np.where(why_B != "", -self.config.termination_cost, reward_B)
        unknown_B = why_B != ""
        late_B = moving_B & ~terminated_B & ~unknown_B & (self.elapsed_B >= self.config.max_episode_steps)
        why_B[late_B] = TIME_LIMIT
        return StepResult(reward_B, terminated_B, (why_B != "") & ~terminated_B, why_B, uncertainty_B)

    def distrust(self, uncertainty_B: np.ndarray) -> np.ndarray:
        """Returns the first reason (B,) not to trust `obs_BO`, given its uncertainty; "" if there is none."""
        outside_B = ((self.obs_BO < self.low_O) | (self.obs_BO > self.high_O)).any(1)
        reasons = {NOT_FINITE: ~np.isfinite(uncertainty_B), BOUNDS: outside_B,
                   UNCERTAINTY: uncertainty_B > self.uncertainty_limit}
        return np.select(list(reasons.values()), list(reasons), default="").astype(object)


Render = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (observation, goal) -> frame (height, width, 3), uint8
Observation = np.ndarray | dict[str, np.ndarray]  # (B, ...) of a vector, or of each entry of a dict
METADATA = {"render_modes": ["rgb_array"], "render_fps": 20}


@dataclass(frozen=True)
class ObservationFormat:
    """How the real environment gives observations and rewards, of goals if the data have any, and how it is drawn."""

    goal_dims: Sequence[int] = ()
    """The entries of an observation that its goal is about (`Episodes.goal_dims`)."""
    obs_keys: Sequence[str] = ()
    """The parts of a dict observation that the data joined (`Episodes.obs_keys`)."""
    compute_reward: GoalReward | None = None
    """Gives the rewards, as in Gymnasium's goal environments; with None they are the world model's."""
    renderer: Render | None = None
    """Draws an observation and a goal; None where the data do not name the environment they come from."""

    @property
    def joined(self) -> int:
        """The number of first entries of the data's observations that are the achieved goal, put before what the real
        environment observes."""
        return len(self.goal_dims) if "achieved_goal" in self.obs_keys[:1] else 0

    def space(self, world: WorldModel) -> Space[Any]:
        """The observation space. Raises ValueError for goals of another width than the world model's."""
        def box(width: int) -> Box:
            return Box(-np.inf, np.inf, (width,), np.float32)

        goal_dim = world.facts.goal_dim
        if not goal_dim:
            return box(world.spec.obs_dim)
        if len(self.goal_dims) != goal_dim:
            raise ValueError(f"goal_dims {tuple(self.goal_dims)} name {len(self.goal_dims)} entries; the world model "
                             f"has goals of {goal_dim}")
        return Dict({"observation": box(world.spec.obs_dim - self.joined), "achieved_goal": box(goal_dim),
                     "desired_goal": box(goal_dim)})

    def observation(self, episodes: ImaginedEpisodes) -> Observation:
        """The present observations (B, ...), as new arrays."""
        if not episodes.goal_BG.shape[1]:
            return episodes.obs_BO.copy()
        return {"observation": episodes.obs_BO[:, self.joined :].copy(),
                "achieved_goal": episodes.obs_BO[:, list(self.goal_dims)], "desired_goal": episodes.goal_BG.copy()}


FLAT = ObservationFormat()  # vectors without goals


class WorldModelVectorEnv(VectorEnv):
    """`num_envs` synthetic episodes. The step after the end of an episode resets it and ignores the action.

    `info["uncertainty"]` is the error that is expected of each step (`gentraj.worlds.model.Imagined`), and
    `info["truncated_by"]` the reason why an episode was truncated, or terminated because the model is not trusted.
    """

    metadata: dict[str, Any] = METADATA | {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, world: WorldModel, action_space: Box, num_envs: int = 1, config: ImaginedConfig | None = None, *,
                 obs_format: ObservationFormat = FLAT, render_mode: str | None = None):
        if render_mode not in (None, *METADATA["render_modes"]):
            raise ValueError(f"render_mode is '{render_mode}'; give rgb_array or None")
        self.num_envs = num_envs
        self.obs_format = obs_format
        self.render_mode = render_mode
        self.episodes = ImaginedEpisodes(world, num_envs, config or ImaginedConfig(),
                                         goal_reward(obs_format.compute_reward, obs_format.goal_dims))
        if obs_format.compute_reward is not None:  # libraries tell goal environments by this attribute
            self.compute_reward = obs_format.compute_reward
        self.single_observation_space = obs_format.space(world)
        self.single_action_space = action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.ended_B = np.zeros(num_envs, bool)

    def reset(self, *, seed: int | Sequence[int | None] | None = None,  # type: ignore[override]
              options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Resets the environments of `options["reset_mask"]`, or all; environment i gets `seed` + i, or `seed[i]`.

        Raises ValueError for another number of seeds or entries of the mask than there are environments.
        """
        mask_B = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, bool)), bool)
        if isinstance(seed, int | np.integer):
            seed = [int(seed) + i for i in range(self.num_envs)]
        seeds = [None] * self.num_envs if seed is None else list(seed)
        if len(seeds) != self.num_envs or mask_B.shape != (self.num_envs,):
            raise ValueError(f"{len(seeds)} seeds and a reset_mask of shape {mask_B.shape} were given for "
                             f"{self.num_envs} environments; give one seed and one entry for each")
        for i, each in enumerate(seeds):
            if each is not None and mask_B[i]:
                self.episodes.rngs[i] = np.random.default_rng(each)
        self.episodes.reset(mask_B)
        self.ended_B = self.ended_B & ~mask_B
        return self.obs_format.observation(self.episodes), {}

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all environments. Raises ValueError for actions of another shape or that are not finite."""
        reset_B = self.ended_B
        happened = self.episodes.step(np.asarray(actions), ~reset_B)
        if reset_B.any():
            self.episodes.reset(reset_B)
        self.ended_B = happened.terminated | happened.truncated
        info = {"uncertainty": happened.uncertainty, "_uncertainty": ~reset_B, "truncated_by": happened.why,
                "_truncated_by": happened.why != ""}
        return (self.obs_format.observation(self.episodes), happened.reward.astype(np.float64), happened.terminated,
                happened.truncated, info)

    def render(self) -> tuple[np.ndarray, ...] | None:  # type: ignore[override]
        """Returns a frame (height, width, 3) of each environment. Raises RuntimeError if none can be drawn."""
        if self.render_mode is None:
            return None
        if self.obs_format.renderer is None:
            raise RuntimeError("this world model cannot be rendered: its data do not name the environment they come "
                               "from")
        return tuple(map(self.obs_format.renderer, self.episodes.obs_BO, self.episodes.goal_BG))

    def close_extras(self, **_: object) -> None:
        """Closes a renderer that holds a simulator; a plain function has no `close`."""
        getattr(self.obs_format.renderer, "close", lambda: None)()


class WorldModelEnv(gymnasium.Env):
    """One synthetic episode at a time, of a `WorldModelVectorEnv` of one environment, and with its `info`."""

    metadata: ClassVar[dict[str, Any]] = METADATA

    def __init__(self, envs: WorldModelVectorEnv):
        self.envs = envs
        self.render_mode = envs.render_mode
        self.episodes = envs.episodes
        if envs.obs_format.compute_reward is not None:
            self.compute_reward = envs.obs_format.compute_reward
        self.observation_space = envs.single_observation_space
        self.action_space = envs.single_action_space

    def reset(self, *, seed: int | None = None,
              options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begins an episode at a start of the data, which `seed` determines."""
        super().reset(seed=seed)
        self.episodes.rngs[0] = self.np_random
        obs, info = self.envs.reset()
        return _first(obs), info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Steps the episode. Raises ValueError for an action of another shape or that is not finite."""
        obs, reward_B, terminated_B, truncated_B, about = self.envs.step(np.asarray(action)[None])
        info = {"uncertainty": float(about["uncertainty"][0])}
        if about["truncated_by"][0]:
            info["truncated_by"] = about["truncated_by"][0]
        return _first(obs), float(reward_B[0]), bool(terminated_B[0]), bool(truncated_B[0]), info

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Returns a frame (height, width, 3). Raises RuntimeError if none can be drawn."""
        frames = self.envs.render()
        if frames is None:
            return None
        return frames[0]

    def close(self) -> None:
        """Closes the environment."""
        self.envs.close()


def _first(obs: Observation) -> Observation:
    """The observation of the first environment."""
    if isinstance(obs, dict):
        return {key: value[0] for key, value in obs.items()}
    return obs[0]
