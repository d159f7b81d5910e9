"""What a policy gains by remembering: where velocities are hidden, and where actions act late.

    python -m benchmarks.memory hopper-expert.hdf5 --env Hopper-v5 --run-dir runs/memory

Both environments, and their data, are made of a file of a MuJoCo environment: of the velocities' entries of each
observation, or of the action of each step, which is then the one that the data carry out `--late` steps later. The
policy sees the last K observations and, of late actions, its last K - 1 actions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import gymnasium
import numpy as np
import torch
import tyro
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box

from gentraj.config import write_json
from gentraj.data import Episodes, load_episodes, save_npz
from gentraj.data.splitting import take
from gentraj.envs.evaluation.scoring import EvaluationConfig
from gentraj.experiments.statistics import over_seeds
from gentraj.runs import PolicyRunConfig, train
from gentraj.runs.judge.evaluation import Acting, evaluate_run
from gentraj.runs.kinds.presets import preset


class Hidden(gymnasium.ObservationWrapper):
    """A MuJoCo environment whose velocities, the last entries of an observation, are not observed."""

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, Box)
        self.seen = space.shape[0] - velocities(env)
        self.observation_space = Box(space.low[: self.seen], space.high[: self.seen], dtype=np.float64)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation[: self.seen]


class Late(gymnasium.Wrapper):
    """An environment in which an action acts `late` steps later; before the first one, actions are 0."""

    def __init__(self, env: gymnasium.Env, late: int):
        super().__init__(env)
        self.late = late
        self.waiting: deque[np.ndarray] = deque()

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        space = self.action_space
        assert isinstance(space, Box)
        self.waiting = deque([np.zeros(space.shape, space.dtype)] * self.late)
        return super().reset(**options)

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.waiting.append(action)
        return super().step(self.waiting.popleft())


def velocities(env: gymnasium.Env) -> int:
    """The number of entries of an observation that are velocities."""
    return getattr(env.unwrapped, "model").nv  # noqa: B009  which only a MuJoCo environment has


def make(env: str, late: int = 0, hidden: bool = False, **options: Any) -> gymnasium.Env:
    """An environment with late actions, or with hidden velocities."""
    made: gymnasium.Env = gymnasium.make(env, **options)
    if late:
        made = Late(made, late)
    return Hidden(made) if hidden else made


CHANGED = "benchmarks/Changed-v0"
if CHANGED not in gymnasium.registry:
    gymnasium.register(CHANGED, "benchmarks.memory:make")


def spec(env: str, **changes: Any) -> str:
    """The EnvSpec, as JSON, of an environment that is changed so."""
    return EnvSpec(CHANGED, "benchmarks.memory:make", kwargs={"env": env, **changes}).to_json()


def hidden(data: Episodes, env: str) -> Episodes:
    """The data without velocities."""
    made = gymnasium.make(env)
    seen = data.obs_dim - velocities(made)
    made.close()
    return replace(data, obs=data.obs[:, :seen], env=spec(env, hidden=True), extras={})


def delayed(data: Episodes, env: str, late: int) -> Episodes:
    """The data as decided `late` steps before they act; the last steps of each episode have no action any more."""
    long = [(e, 0, int(steps) - late) for e, steps in enumerate(data.lengths) if steps > late]
    act = [data[e].act[late:] for e, _, _ in long]
    return replace(take(data, long), act=np.concatenate(act), env=spec(env, late=late), extras={})


@dataclass(frozen=True)
class Args:
    dataset: Annotated[str, tyro.conf.Positional]
    """Data of a MuJoCo environment, in which velocities are observed, and actions act at once."""
    run_dir: Path
    """A folder for the data, the runs and their scores."""
    env: str = "Hopper-v5"
    """The Gymnasium id of the environment."""
    policy: str = "bc-mip"
    """The preset of the policy."""
    tasks: tuple[str, ...] = ("hidden", "late")
    history: tuple[int, ...] = (1, 2, 4)
    late: int = 3
    """Steps after which an action acts."""
    steps: int = 1000
    """Updates of each training."""
    batch: int = 64
    """Transitions in a batch."""
    limit: int = 300
    """Steps of an episode of the evaluation."""
    seeds: int = 2
    episodes: int = 20


def main(args: Args) -> None:
    torch.set_num_threads(1)
    data = load_episodes(args.dataset)
    makes = {"hidden": lambda: hidden(data, args.env), "late": lambda: delayed(data, args.env, args.late),
             "as it is": lambda: replace(data, env=spec(args.env), extras={})}
    for task in args.tasks:
        made = makes[task]()
        limited = replace(EnvSpec.from_json(str(made.env)), max_episode_steps=args.limit)
        path = save_npz(replace(made, env=limited.to_json()), args.run_dir / f"{task}.npz")
        for history in args.history:
            scores = [returns(args, path, task, history, seed) for seed in range(args.seeds)]
            write_json(args.run_dir / f"{task}-{history}.json", {"returns": scores})
            found = over_seeds(scores)
            each = ", ".join(f"{np.mean(one):.0f}" for one in scores)
            print(f"{task:10} K = {history}: {found.mean:.0f} [{found.low:.0f}, {found.high:.0f}], of each seed {each}",
                  flush=True)


def returns(args: Args, path: Path, task: str, history: int, seed: int) -> Sequence[float]:
    """The returns of one training's episodes."""
    config = preset(args.policy, str(path))
    assert isinstance(config, PolicyRunConfig)
    training = replace(config.training, steps=args.steps, save_every=args.steps, seed=seed)
    config = replace(config, dataset=str(path), history=history, past_actions=history - 1 if task == "late" else 0,
                     stitch=False, training=training, policy=replace(config.policy, batch_size=args.batch))
    run = train(config, args.run_dir / f"{task}-{history}-{seed}", progress=False)
    scores, _ = evaluate_run(run, EvaluationConfig(episodes=args.episodes, baselines=False), Acting(), progress=False)
    return scores["returns"]


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
