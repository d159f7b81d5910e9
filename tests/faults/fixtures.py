"""Whole runs, one of each kind, as this format of runs writes them: `python -m tests.faults.fixtures` makes those that
are missing in the folder of the present format, with what they sample and how they act.

A run that is there is never made anew, as it stands for the runs of users. Raise FORMAT_VERSION for that.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from envs.evaluation.rollout import rollout
from envs.making import environment_factory
from envs.recording.baselines import RandomAgent
from gentraj import cli, runs
from gentraj.data import save_npz
from gentraj.distillation import STUDENTS
from gentraj.networks.rows import batch_invariant
from gentraj.runs import Run
from gentraj.training.checkpoint import FORMAT_VERSION
from gentraj.trajectory import Condition

HERE = Path(__file__).parent
PRESENT = HERE / f"format-{FORMAT_VERSION}"
DATA, OUTPUTS = "pendulum.npz", "outputs.safetensors"
EPISODES, LENGTH = 6, 20
SAVED, STEPS = 19, 20  # a run was saved at the first and is one step short of its end

FEW = (f"--steps {STEPS} --training.save-every {SAVED} --training.log-every 10 --training.warmup 2 "
       "--training.threads 1 --device cpu")
BATCH, CRITIC = "--batch-size 8", "--critic.width 4 --critic.batch-size 8"
INVERSE = "--inverse.width 4 --inverse.batch-size 8"
PLAN = f"{FEW} {BATCH} {INVERSE} {CRITIC} --critic.depth 1 --planner.candidates 2"
NET = "--network residualmlp --model.network.width 4 --model.network.depth 1"
UNET = "--model.network.width 4 --model.network.multipliers 1 2 --model.network.kernel 3"
JUDGE = "--model.discriminator.width 4 --model.discriminator.multipliers 1 2 --model.discriminator.kernel 3"
PRIOR = "--network residualmlp --model.prior.network.width 4 --model.prior.network.depth 1 --model.vae.width 4"
POLICY = f"{FEW} --policy.batch-size 8 --policy.model.network.width 4 --policy.model.network.depth 1"
ONE_STEP = POLICY.replace(".model.", ".student.")
VALUES = "--policy.critic.width 4 --policy.critic.depth 1 --policy.critic.n-step 1"
WORLD = ("--world.width 4 --world.members 2 --world.batch-size 8 --world.model.network.width 4 "
         "--world.model.network.depth 1 --control.samples 4 --control.horizon 4")

# How each run is trained, after `gentraj train` or `gentraj distill RUN`. Together they have each kind of a run, a
# policy, a model and a network that there is, which a test checks.
TRAINED = {
    "unet": f"veteran {PLAN} --horizon 4 --network temporalunet {UNET} --model.steps 2 --planner.steps 2",
    "dit": f"veteran {PLAN} --horizon 3 --network dit --model.network.width 4 --model.network.depth 1 "
           "--model.network.heads 1",
    "flow": f"veteran {PLAN} --horizon 3 --family flow {NET}",
    "latent": f"veteran {PLAN} --horizon 4 --family latent {PRIOR}",
    "gan": f"veteran+ {FEW} {BATCH} {CRITIC} --horizon 4 --family gan {NET} {JUDGE}",
    "gaussian": f"veteran {PLAN} --horizon 3 --family gaussian {NET}",
    "goals": f"goals {FEW} {BATCH} {INVERSE} {NET} --mix.goal-dims 0 1 --horizon 4 --arrival.width 4 "
             "--arrival.batch-size 8 --planner.steps 2",
    "perceptron": f"td3bc-published {POLICY} --policy.critic.width 4 --policy.critic.depth 1",
    "diffuser": f"diffuser {FEW} {BATCH} {CRITIC} --critic.n-step 4 --horizon 3 {NET}",
    "decision-diffuser": f"decision-diffuser {FEW} {BATCH} {INVERSE} {NET} --horizon 3 --planner.steps 2",
    "diffuser-lite": f"diffuser-lite {PLAN} {NET} --stride 4 --refine 2 2",
    "bc": f"bc-gaussian {POLICY}",
    "diffusion-policy": f"diffusion-policy {POLICY} --policy.chunk 2 --policy.execute 2",
    "iql": f"iql {POLICY} {VALUES}",
    "idql": f"idql {POLICY} {VALUES}",
    "td3bc": f"td3bc {POLICY} {VALUES}",
    "diffusion-ql": f"diffusion-ql {POLICY} {VALUES}",
    "fql": f"fql {POLICY} {VALUES}",
    "gfp": f"gfp {POLICY} {VALUES}",
    "meanflow-ql": f"meanflow-ql {ONE_STEP} {VALUES}",
    "drol": f"drol {ONE_STEP} {VALUES} --policy.critic.quantiles 2",
    "swift": f"swift {POLICY} {VALUES}",
    "world-model": f"world-model {FEW} {WORLD}",
}
DISTILLED = {name: ("flow", f"--method {name} {FEW}") for name in STUDENTS} | {
    "adversarial": ("flow", f"--method adversarial {FEW} --student.discriminator.width 4 "
                            "--student.discriminator.kernel 3"),
    "student": ("flow", f"--method decision {FEW} --episodes 1 --rounds 0 --policy.width 4 --policy.depth 1 "
                        "--policy.batch-size 8 --replan 50 --temperature 0")}
KINDS = (*TRAINED, *DISTILLED)


def words(name: str, folder: Path) -> list[str]:
    """The words of the command that trains the run `name` in a folder beside the data and the other runs."""
    if name in TRAINED:
        return ["train", *TRAINED[name].split(), "--dataset", str(folder / DATA), "--run-dir", str(folder / name)]
    teacher, options = DISTILLED[name]
    return ["distill", str(folder / teacher), *options.split(), "--run-dir", str(folder / name)]


@batch_invariant()
def outputs(run: Run) -> dict[str, Tensor]:
    """What a run samples, and how its agent acts in three steps of two episodes."""
    agent = run.agent(run.action_space())
    obs_BO = run.reference.x_BHD[:2, 0, : run.data.obs_dim]
    dims = list(runs.read_config(run.folder)[1].goal_dims)  # of the data, as those that the settings name came later
    goal_BG = obs_BO[:, dims] + 1 if dims else None
    agent.reset(None, [1, 2])
    found = {"act_KBA": torch.stack([agent.act(obs_BO, goal_BG) for _ in range(3)])}
    if run.config.NAME == "planner":
        known = Condition.unknown(run.model.spec, 2).with_obs(0, obs_BO)
        found["sample_BNHD"] = run.model.sample(known, 2, seed=[3, 4, 5, 6])
    if run.config.NAME == "world model":
        act_BTA = 0.1 * torch.arange(6.0).reshape(2, 3, 1)
        found["next_BTO"] = run.world_model.imagine(obs_BO, act_BTA, seeds=[3, 4]).obs_BTO
    return found


def make(folder: Path, name: str) -> None:
    """Makes a run that was saved at step `SAVED` and was lost after it, with its outputs then and at the end.

    Raises `FileExistsError` if it is there.
    """
    made = folder / name
    if made.exists():
        raise FileExistsError(f"{made} stands for the runs that users have; raise FORMAT_VERSION instead")
    if cli.main(words(name, folder)):
        raise SystemExit(f"{name} was not trained")
    recorded = {f"{step}.{key}": value for step in (SAVED, STEPS)
                for key, value in outputs(runs.load(made, step=step)).items()}
    save_file(recorded, made / OUTPUTS)
    for lost in (STEPS, 0):
        shutil.rmtree(made / f"step-{lost:08}")
    (made / ".lock").unlink()


def make_data(folder: Path) -> None:
    """Episodes of random actions in Pendulum."""
    factory = environment_factory("Pendulum-v1", {"max_episode_steps": LENGTH})
    agent = RandomAgent([-2], [2])
    played = rollout(agent, factory, EPISODES, num_envs=1, record=True, progress=False)
    assert played.recorded is not None
    save_npz(played.recorded, folder / DATA)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if not (PRESENT / DATA).exists():
        make_data(PRESENT)
    missing = [name for name in KINDS if not (PRESENT / name).exists()]
    if not missing:
        sys.exit(f"{PRESENT} has every kind of run; nothing is made anew unless FORMAT_VERSION is raised")
    for name in missing:
        make(PRESENT, name)
        print(name, sum(os.path.getsize(path) for path in (PRESENT / name).rglob("*") if path.is_file()))


if __name__ == "__main__":
    main()
