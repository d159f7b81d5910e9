"""The bad inputs of messages.txt: commands as they are typed, lines of Python, and harm done to files."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import torch
from fixtures import DATA, PRESENT
from gymnasium.spaces import Box, Dict, Discrete

import agents
import envs
import gentraj
from envs.evaluation.evaluate import EvaluationConfig
from envs.evaluation.rollout import rollout
from envs.recording.baselines import RandomAgent
from gentraj import constraints, diffusion
from gentraj.config import sealed
from gentraj.data import DataError, Episodes, Windows, load_episodes
from gentraj.networks import DiTConfig, TemporalUNetConfig
from gentraj.normalize import Normalizer
from gentraj.training import TrainingConfig, checkpoint  # noqa: F401  (the calls below use it)
from gentraj.training.checkpoint import FORMAT_VERSION
from gentraj.trajectory import Condition, SamplingOptions, TrajectorySpec

Change = Callable[[dict], object]


def dataset(change: Change) -> Callable[[Path], None]:
    """Writes the good data after a change of its arrays."""
    def make(path: Path) -> None:
        arrays = dict(np.load(PRESENT / DATA))
        change(arrays)
        np.savez(path, **arrays)
    return make


def planted(key: str, index: int, value: object) -> Callable[[Path], None]:
    def change(arrays: dict) -> None:
        arrays[key] = arrays[key].astype(np.float64) if arrays[key].dtype == np.float32 else arrays[key]
        arrays[key][index] = value
    return dataset(change)


def foreign(id_: str) -> Callable[[Path], None]:
    return dataset(lambda a: a.update(env=np.array(json.dumps({"id": id_}))))


def cut(path: Path) -> None:
    path.write_bytes((PRESENT / DATA).read_bytes()[:500])


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("obs.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (10**7, 3)})
        for _ in range(12):
            member.write(bytes(10**7))


# name: (what is wrong with it, how it is made)
DATASETS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "nan.npz": ("nan.npz has NaN as the action of step 45", planted("act", 45, np.nan)),
    "inf.npz": ("inf.npz has an infinite observation", planted("obs", 63, np.inf)),
    "large.npz": ("large.npz has the reward 1e300", planted("reward", 7, 1e300)),
    "ended.npz": ("ended.npz says in the middle of an episode that it has ended", planted("terminated", 5, True)),
    "rows.npz": ("rows.npz lacks the last observations", dataset(lambda a: a.update(obs=a["obs"][:120]))),
    "flat.npz": ("flat.npz has actions without a second dimension", dataset(lambda a: a.update(act=a["act"][:, 0]))),
    "empty.npz": ("empty.npz has an episode of 0 steps", dataset(
        lambda a: a.update(lengths=np.array([20, 0, 20, 20, 20, 40])))),
    "half.npz": ("half.npz has an episode of 20.5 steps", dataset(
        lambda a: a.update(lengths=np.array([20.5, 19.5, 20, 20, 20, 20])))),
    "sum.npz": ("sum.npz has lengths that add up to fewer steps", dataset(
        lambda a: a.update(lengths=np.array([20, 20, 20])))),
    "missing.npz": ("missing.npz has no actions", dataset(lambda a: a.pop("act"))),
    "text.npz": ("text.npz has text as observations", dataset(lambda a: a.update(obs=np.full((126, 3), "a")))),
    "goal.npz": ("goal.npz names entry 7 of 3 as its goal", dataset(lambda a: a.update(goal_dims=np.array([7])))),
    "pickle.npz": ("pickle.npz holds Python objects", dataset(
        lambda a: a.update(obs=np.array([None] * 126, dtype=object)))),
    "wide.npz": ("wide.npz is wider than the environment that it names", dataset(
        lambda a: a.update(obs=np.repeat(a["obs"], 2, axis=1)))),
    "strong.npz": ("strong.npz has actions of another width than its environment", dataset(
        lambda a: a.update(act=np.repeat(a["act"], 2, axis=1)))),
    "hostile.npz": ("hostile.npz names 'os:system' as its environment", foreign("os:system")),
    "cut.npz": ("cut.npz is only the beginning of a file", cut),
    "bomb.npz": ("bomb.npz takes 120 kB and declares 120 MB", bomb),
    "text.hdf5": ("text.hdf5 is a text file", lambda path: path.write_text("obs,act\n0,1\n")),
    "pipe.npz": ("pipe.npz is a pipe", os.mkfifo),
}


def config(change: Change) -> Callable[[Path], None]:
    def harm(run: Path) -> None:
        content = json.loads((run / "config.json").read_text())
        content.pop("sha256", None)  # as a person does who edits it
        change(content)
        (run / "config.json").write_text(json.dumps(content))
    return harm


def in_checkpoint(name: str, change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda run: change(next(run.glob("step-*")) / name)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def signed(key: str, value: object) -> Callable[[Path], None]:
    """Changes meta.json and makes its hash right again."""
    def harm(path: Path) -> None:
        body = json.loads(path.read_text()) | {key: value}
        body.pop("sha256", None)
        path.write_bytes(sealed(body))
    return in_checkpoint("meta.json", harm)


# what was done to the run `broken`: (the kind of run that it was, how)
HARMS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "config.json is missing": ("flow", lambda run: (run / "config.json").unlink()),
    "config.json is cut": ("flow", lambda run: shorten(run / "config.json")),
    "config.json has a key more": ("flow", config(lambda c: c["run"].update(colour="red"))),
    "config.json has a key less": ("flow", config(lambda c: c["run"]["model"].pop("levels"))),
    "config.json has a word in place of a number": ("flow", config(lambda c: c["run"].update(horizon="long"))),
    "config.json has a kind that there is not": ("flow", config(lambda c: c["run"]["model"].update(kind="os.system"))),
    "config.json has another horizon than the checkpoint": ("flow", config(lambda c: c["run"].update(horizon=8))),
    "config.json has another width of observations": ("iql", config(lambda c: c["data"].update(obs_dim=5))),
    "config.json has a newer format": ("flow", config(lambda c: c.update(format_version=FORMAT_VERSION + 1))),
    "config.json has an older format": ("flow", config(lambda c: c.update(format_version=FORMAT_VERSION - 1))),
    "config.json has format 0": ("flow", config(lambda c: c.update(format_version=0))),
    "config.json is a link": ("flow", lambda run: link(run / "config.json")),
    "there is no checkpoint": ("flow", lambda run: shutil.rmtree(next(run.glob("step-*")))),
    "the weights are cut": ("flow", in_checkpoint("model.safetensors", shorten)),
    "one bit of the weights is flipped": ("flow", in_checkpoint("model.safetensors", flip)),
    "the weights are a link": ("flow", in_checkpoint("model.safetensors", link)),
    "meta.json is missing": ("flow", in_checkpoint("meta.json", Path.unlink)),
    "one bit of meta.json is flipped": ("flow", in_checkpoint("meta.json", flip)),
    "meta.json has a newer format, and its hash is right": ("flow", signed("format_version", FORMAT_VERSION + 1)),
    "meta.json has a key more, and its hash is right": ("flow", signed("colour", "red")),
    "meta.json names a file elsewhere, and its hash is right": (
        "flow", signed("files", {"../../x.safetensors": {"size": 3, "sha256": "0"}})),
    "reference.safetensors is missing": ("flow", lambda run: (run / "reference.safetensors").unlink()),
    "reference.safetensors is cut": ("flow", lambda run: shorten(run / "reference.safetensors")),
    "reference.safetensors is a pipe": ("flow", lambda run: pipe(run / "reference.safetensors")),
    "metrics.jsonl is a link": ("flow", lambda run: link(run / "metrics.jsonl")),
    "evaluation.json is not JSON": ("flow", lambda run: (run / "evaluation.json").write_text("{")),
}


class Faulty(gymnasium.Env):
    """An environment whose third step does something wrong."""

    observation_space, action_space = Box(-10, 10, (3,), np.float64), Box(-1, 1, (1,), np.float32)

    def __init__(self, wrong: Callable = lambda result: result, **spaces: gymnasium.Space):
        self.wrong, self.steps = wrong, 0
        for name, space in spaces.items():
            setattr(self, name, space)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        self.steps = 0
        return np.zeros(3), {}

    def step(self, action: object) -> tuple:
        self.steps += 1
        result = np.zeros(3), 0.0, False, self.steps == 5, {}
        return self.wrong(result) if self.steps == 3 else result


def played(wrong: Callable = lambda result: result, agent: object = None, **spaces: gymnasium.Space) -> object:
    return rollout(agent or RandomAgent([-1], [1]), lambda: Faulty(wrong, **spaces), 1, progress=False)


class Acting:
    """An agent that always does the same."""

    def __init__(self, *act: float, spec: TrajectorySpec | None = None):
        self.fixed, self.spec = torch.tensor([act]), spec

    def reset(self, mask_B: object = None, seeds_B: object = None) -> None: ...

    def act(self, obs_BO: torch.Tensor, goal_BG: object = None) -> torch.Tensor:
        return self.fixed.expand(len(obs_BO), -1)


def names(folder: Path) -> dict[str, object]:
    """What the lines of Python can name."""
    run, policy, world = (gentraj.load(folder / name) for name in ("planner", "policy", "world"))
    spec = run.model.spec
    return globals() | {
        "run": run, "model": run.model, "policy": policy, "world": world.world_model, "spec": spec, "nan": float("nan"),
        "inf": float("inf"), "known": Condition.unknown(spec), "zeros": torch.zeros, "ones": torch.ones,
        "space": run.action_space(), "episodes": load_episodes(folder / "data.npz"), "gentraj": gentraj,
        "agents": agents, "envs": envs}


_USED = (DataError, DiTConfig, Dict, Discrete, Episodes, EvaluationConfig, Normalizer, SamplingOptions,
         TemporalUNetConfig, TrainingConfig, Windows, constraints, diffusion, replace)  # by the lines of Python

TRAIN = "--dataset data.npz --run-dir new --steps 2"

SECTIONS: dict[str, list[str | tuple[str, str]]] = {
    "Commands and their options": [
        "gentraj trian", "gentraj fly", "gentraj train", "gentraj train pointmaze-umase",
        "gentraj train veteran", f"gentraj train veteran {TRAIN} --steps 0",
        f"gentraj train veteran {TRAIN} --horizon 0",
        f"gentraj train veteran {TRAIN} --horizon 9 --network temporalunet",
        f"gentraj train veteran {TRAIN} --batch-size 0", f"gentraj train veteran {TRAIN} --model.learning-rate nan",
        f"gentraj train veteran {TRAIN} --model.ema 2", f"gentraj train veteran {TRAIN} --critic.expectile 1.5",
        f"gentraj train veteran {TRAIN} --no-valued", f"gentraj train veteran {TRAIN} --planner.actions joint",
        f"gentraj train veteran {TRAIN} --planner.history 3", f"gentraj train veteran {TRAIN} --stride -1",
        f"gentraj train veteran {TRAIN} --refine 1",
        f"gentraj train veteran {TRAIN} --config file",
        f"gentraj train veteran {TRAIN} --joint --dynamics --planner.actions track",
        f"gentraj train td3bc {TRAIN} --family gan", f"gentraj train iql {TRAIN} --policy.chunk 0",
        f"gentraj train goals {TRAIN}", f"gentraj train goals {TRAIN} --mix.goal-dims 9",
        f"gentraj train world-model {TRAIN} --held-out 1", f"gentraj train iql {TRAIN} --env-id Pendulum-v9",
        f"gentraj train iql {TRAIN} --env-id CartPole-v1", "gentraj train iql --dataset data.npz --run-dir file",
        "gentraj train iql --dataset data.npz --run-dir file/new",
        "gentraj train iql --dataset data.npz --run-dir policy", "gentraj train --resume nowhere",
        "gentraj train --resume planner --horizon 8", "gentraj train --resume planner --run-dir new",
        "gentraj train --resume planner --seed 1", "gentraj --import nothing train iql",
    ],
    "Acting, sampling, reporting": [
        "gentraj evaluate nowhere", "gentraj evaluate file", "gentraj evaluate folder",
        "gentraj evaluate planner --episodes 0", "gentraj evaluate planner --num-envs -1",
        "gentraj evaluate planner --seed -1", "gentraj evaluate planner --env-id Hopper-v5",
        "gentraj evaluate planner --env-id CartPole-v1", "gentraj evaluate planner --env-id Pendulum",
        "gentraj evaluate planner --planner.replan 0", "gentraj evaluate planner --planner.actions joint",
        "gentraj evaluate planner --deadline-ms 5 --hz 20", "gentraj evaluate planner --time-limit 5",
        "gentraj evaluate planner --out folder", "gentraj evaluate planner --save-rollout mine",
        "gentraj evaluate planner --as world-model", "gentraj evaluate planner --protocol d4rl-single-goal",
        "gentraj evaluate planner --teacher policy", "gentraj sample planner --out a.txt",
        "gentraj sample planner --out a.npz --num 0", "gentraj sample planner --out a.npz --start 1,2",
        "gentraj sample planner --out a.npz --start 1,nan,2", "gentraj sample planner --out a.npz --goal 1,2",
        "gentraj sample maze --out a.npz --goal 1,2,3", "gentraj sample maze --out a.npz --arrival 2",
        "gentraj sample planner --out a.npz --steps 0", "gentraj sample policy --out a.npz",
        "gentraj sample world --out a.npz", "gentraj measure policy", "gentraj report planner --out folder",
        "gentraj export planner --out a.txt", "gentraj export planner --out folder",
    ],
    "Students, fine-tuning, synthetic data, experiments": [
        "gentraj distill planner --method reflow --run-dir planner",
        "gentraj distill policy --method reflow --run-dir new", "gentraj distill world --method reflow --run-dir new",
        "gentraj distill planner --method reflow --run-dir new --student.steps 0",
        "gentraj distill planner --method decision --run-dir new --episodes 0",
        "gentraj distill planner --method reflow --run-dir new --resume",
        "gentraj finetune planner --run-dir new", "gentraj finetune policy --run-dir policy",
        "gentraj finetune policy --run-dir new --steps 0",
        "gentraj augment data.npz --model policy --steps 10 --out mine/a-v0",
        "gentraj augment data.npz --model world --steps 0 --out mine/a-v0",
        "gentraj augment data.npz --model world --steps 10 --out a",
        "gentraj pareto nowhere", "gentraj ablate iql --dataset data.npz --vary policy.chunk",
        "gentraj reproduce nowhere.json",
        "gentraj compare", "gentraj compare diffusion --dataset data.npz",
    ],
    "Data": [
        "gentraj data make pointmaze-umase", "gentraj data make pointmaze-umaze --steps 0 --id mine/a-v0",
        "gentraj data make pointmaze-umaze --id a/b-v0", "gentraj data import nowhere.npz --id mine/a-v0",
        "gentraj data import data.csv --id mine/a-v0", "gentraj data inspect nowhere.npz",
        "gentraj train iql --dataset nothing --run-dir new",
        "gentraj train iql --dataset ../../etc/x-v0 --run-dir new",
        "gentraj train iql --dataset data.npz+nowhere.npz --run-dir new",
        *(f"gentraj train iql --dataset {name} --run-dir new --steps 2" for name in DATASETS),
        "Episodes(zeros(6, 2), zeros(5, 1), zeros(5), zeros(5), zeros(4), [5])",
        "Episodes(zeros(6, 2), zeros(5, 1), zeros(5), zeros(5), zeros(5), [3])",
        "replace(episodes, reward=episodes.act)",
        "replace(episodes, extras={'goal': episodes.obs[1:]})", "replace(episodes, goal_dims=(0, 5))",
        "load_episodes('data.csv')",
        "Windows(episodes, TrajectorySpec(4, 1, 8))", "Normalizer.fit('squares', [episodes.obs])",
    ],
    "Folders of runs": [
        *((harm, f"gentraj {command} broken") for harm, command in {
            **dict.fromkeys(HARMS, "evaluate"), "metrics.jsonl is a link": "report",
            "evaluation.json is not JSON": "report"}.items()),
        ("there is no checkpoint", "gentraj report broken"), ("one bit of the weights is flipped",
        "gentraj train --resume broken"),
        ("config.json has another horizon than the checkpoint", "gentraj train --resume broken"),
        "gentraj.load('nowhere')", "gentraj.load('planner', step=7)",
        "checkpoint.save(Path('new'), 1, {'a/b': {}}, {})", "policy.planning", "policy.world_model",
        "policy.agent(space, deadline=agents.Deadline(1.0))", "TrainingConfig(steps=0)", "TrainingConfig(warmup=-1)",
    ],
    "Trajectories and conditions": [
        "TrajectorySpec(0, 1, 8)", "TrajectorySpec(3, 1, 10**9)", "TrajectorySpec(3, 1, 4, offsets=(1, 1, 2))",
        "known.with_obs(9, zeros(3))", "known.with_obs(0, zeros(2))", "known.with_obs(0, zeros(2), dims=(0, 5))",
        "known.with_obs(0, zeros(3) * nan)", "known.with_obs(0, zeros(3, 3))",
        "Condition(spec, zeros(1, 3, 3), zeros(1, 3, 3))", "Condition(spec, zeros(1, 4, 3), zeros(1, 4, 3) > 0)",
        "replace(known, context_BC=zeros(2, 1))", "model.sample(known, 0)", "model.sample(known, 3, seed=[1, 2])",
        "model.sample(Condition.unknown(TrajectorySpec(3, 0, 16)))",
        "model.sample(replace(known, context_BC=zeros(1, 2)))",
    ],
    "Samplers, guides, constraints": [
        "SamplingOptions(temperature=-1)", "model.sample(known, options=SamplingOptions(steps=0))",
        "model.sample(known, options=SamplingOptions(steps=2.5))",
        "model.sample(known, options=SamplingOptions('eular'))",
        "model.sample(known, options=SamplingOptions('unipc', eta=0.5))",
        "model.sample(known, options=SamplingOptions(grid='squared'))", "model.sample(known, guide='up')",
        "model.sample(known, guide=lambda x: x.sum())", "model.sample(known, guide=lambda x: x.sum((1, 2)) * nan)",
        "model.sample(known, guide=lambda x: x.detach().sum((1, 2)))", "model.sample(known, guide=lambda x: {}['up'])",
        "diffusion.Energy(lambda x: x, scale=nan)", "diffusion.Energy(lambda x: x, interval=(0.6, 0.2))",
        "model.sample(known, guide=diffusion.ClassifierFree(2.0))", "diffusion.Product([model, model], [1.0])",
        "constraints.Box(1.0, 0.0, (0,))", "constraints.Circle((0.0,), 1.0, (0, 1))",
        "constraints.Speed(-1.0, (0,), dt=0.1)",
        "constraints.Constraints(spec, {'arena': constraints.Box(0, 1, (7,))})",
        "diffusion.DiffusionConfig(levels=0)", "diffusion.DiffusionConfig(path='vp-sine')",
        "TemporalUNetConfig(kernel=4)",
        "DiTConfig(width=10, heads=4)", "gentraj.accelerate(model, 'abacus')",
    ],
    "Environments and agents": [
        "played(lambda r: (r[0] * nan, *r[1:]))", "played(lambda r: (zeros(4), *r[1:]))",
        "played(lambda r: (r[0] + 11, *r[1:]))", "played(lambda r: (r[0], nan, *r[2:]))",
        "played(lambda r: (r[0], '1', *r[2:]))", "played(lambda r: (*r[:2], None, *r[3:]))",
        "played(lambda r: (*r[:4], {'success': 'yes'}))", "played(lambda r: r[:4])", "played(lambda r: 1 / 0)",
        "played(agent=Acting(nan))", "played(agent=Acting(2.0))", "played(agent=Acting(0.0, 0.0))",
        "played(agent=Acting(0.0, spec=TrajectorySpec(5, 1, 8)))",
        "played(observation_space=Box(0, 255, (8, 8, 3), np.uint8))", "played(action_space=Discrete(3))",
        "played(observation_space=Dict(pixels=Box(0, 255, (8, 8, 3), np.uint8)))", "EvaluationConfig(episodes=0)",
        "EvaluationConfig(hz=0)", "run.environment('nowhere-v0') and run.action_space('nowhere-v0')",
        "world.imagine(zeros(1, 3), zeros(1, 2, 2), seeds=[0])",
        "world.imagine(zeros(2, 3), zeros(2, 2, 1), seeds=[0])",
        "policy.agent(space).act(zeros(1, 4))", "run.agent(space).act(zeros(1, 4))",
    ],
}
