"""`gentraj evaluate`: the closed-loop score of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated

from gentraj.envs.evaluation.scoring import EvaluationConfig
from gentraj.envs.evaluation.stepping import EnvironmentFault

from ..acceleration import BackendName, accelerate
from ..config import dotted_keys, settings, unknown_option
from ..data import save_minari
from ..data.minari_io import check_new_id
from ..device import pick_device
from ..progress import print_saved, say
from ..runs.judge.evaluation import Acting, evaluate
from ..runs.kinds.loading import load
from ..runs.kinds.run import ActingConfig, Run
from .options import (
    GROUP,
    CheckpointStep,
    Configuring,
    Device,
    Given,
    RunPath,
    SamplerOptions,
    below,
    load_trained,
    options_of,
    print_settings,
    with_options,
)


@settings
class Evaluate(Configuring):
    """Run a trained planner, policy or world model in closed loop in its environment, and write its scores.

    The scores are printed next to those of the data, of a random agent and, in a maze, of the controller that collected
    the data. How far a world model's predictions can be trusted, `gentraj judge` says.

    The settings by which the agent acts are options too, such as --acting.temperature 0; `gentraj evaluate RUN --help`
    lists them.

    Examples: gentraj evaluate runs/demo --episodes 100 --video runs/demo/videos
              gentraj evaluate runs/demo --protocol d4rl-single-goal
              gentraj evaluate runs/demo --deadline-ms 50 --fallback runs/demo-student
              gentraj evaluate runs/iql --episodes 20 --env-id Hopper-v5
              gentraj evaluate runs/idql --acting.candidates 32 --out best-of-32.json
    """

    run: RunPath
    """The folder of a run, as `gentraj train` writes it."""
    step: CheckpointStep = None
    env_id: str | None = None
    """Environment: a Gymnasium id or a task name; --env-kwargs KEY=VALUE gives its arguments. The default is the
    environment that the data come from."""
    config: Annotated[EvaluationConfig, GROUP] = field(default_factory=EvaluationConfig)
    sampling: Annotated[SamplerOptions, GROUP] = field(default_factory=SamplerOptions)
    fallback: Path | None = None
    """With --deadline-ms: a run, such as a planner's student, that acts while no plan or chunk is ready. Without it, a
    planner stands still then, and a policy holds its last action."""
    out: Path | None = None
    """The JSON file for the scores; by default RUN/evaluation.json."""
    save_rollout: str | None = None
    """Also save the episodes as a Minari dataset with this id, such as mine/rollout-v0."""
    video: Path | None = None
    """Also write videos (MP4) of the first three episodes into this folder."""
    accelerate: BackendName = "eager"
    """What runs the networks of RUN. compile: torch.compile, which takes a minute or more at first; openvino and
    openvino-bf16: OpenVINO (extra openvino), the latter in bfloat16."""
    device: Device = None

    def __call__(self) -> None:
        run = accelerate(load_trained(self.run, self.device, self.step), self.accelerate)
        if self.save_rollout is not None:
            check_new_id(self.save_rollout)
        scores = evaluate(run, self.env_id, acting=self._acting(run), out=self.out, video=self.video,
                          **vars(self.config))
        if self.save_rollout is not None:
            save_minari(scores.recorded, self.save_rollout,
                        description=f"rollout of {run.summary} of {run.folder.absolute().name}")
            say(f"episodes in {self.save_rollout}")
        print_saved(scores)
        if failures := scores["failures"]:
            raise EnvironmentFault(f"{len(failures)} of {len(failures) + scores['episodes']} episodes did not finish, "
                                   f"and the scores are those of the others; the first: {failures[0]}")

    @classmethod
    def more_help(cls, given: Given) -> Callable[[], None] | None:
        """The settings by which the agent of the run that is named acts."""
        if not any(map(cls.is_argument, given.get("run", ()))):
            return None
        return partial(print_settings, cls._settings(load(given["run"][0]), given), "acting")

    @classmethod
    def _settings(cls, run: Run, given: Given) -> ActingConfig:
        """The settings by which the agent of a run acts. Raises ValueError for an unknown or wrong one."""
        acting = with_options(run.acting, below("acting", given), "acting")
        own = {*options_of(cls), *dotted_keys(EvaluationConfig())}
        for key in given:
            if key not in own and not key.startswith("acting."):
                raise unknown_option(key, [*own, *dotted_keys(acting, "acting.")])
        return acting

    def _acting(self, run: Run) -> Acting:
        """How the run acts. Raises ValueError for an unknown or wrong setting."""
        acting = self._settings(run, self.given)
        fallback = self.fallback and load(self.fallback, device=pick_device(self.device))
        return Acting(acting, self.sampling.options(), fallback)
