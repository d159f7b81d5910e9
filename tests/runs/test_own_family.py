"""A family of one's own, a model with the members that docs/extending.md lists and no more, serves every command."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import config, gentraj
from torch import Tensor, nn

from gentraj import runs
from gentraj.families import MODELS
from gentraj.models.conditional import GeneratorConfig
from gentraj.networks import NETWORKS, NetworkConfig, ResidualMLPConfig
from gentraj.randomness import as_noise
from gentraj.runs.show.report import Drawing
from gentraj.testing import check_model
from gentraj.training.optimization import LearningConfig, adamw
from gentraj.training.step import TrainingStep
from gentraj.trajectory import DEFAULT_OPTIONS, Condition


@dataclass(frozen=True)
class OwnConfig(GeneratorConfig, LearningConfig):
    network: NetworkConfig = field(default_factory=lambda: ResidualMLPConfig(8, 1))


class Own(nn.Module):
    """A network from noise and known entries to trajectories, trained to return the data."""

    def __init__(self, spec: Any, config: Any, normalizer: Any, context: Any = None, *, conditioning: Any = None,
                 context_dropout: float = 0.1, batch_size: int = 64):
        super().__init__()
        self.spec, self.config, self.normalizer, self.conditioning = spec, config, normalizer, conditioning
        self.batch_size = batch_size
        self.network = NETWORKS.made_of(config.network)(spec.dim, spec.horizon, 0, config.network)

    def optimizers(self) -> dict[str, Any]:
        return {"network": adamw(self.network, self.config)}

    def update(self, step: TrainingStep, *, guide: Any = None) -> dict[str, Tensor]:
        batch, generator = step.batch, step.generator
        x0, real = self.normalizer.normalize(batch.x_BHD) * batch.mask_BHD, batch.mask_BHD
        known = real if self.conditioning is None else self.conditioning.sample(self.spec, real, generator)
        loss = ((self._generate(torch.randn(x0.shape, generator=generator), x0, known) - x0) ** 2 * real).mean()
        step.descend(loss, "network", 1.0)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def sample(self, condition: Condition, num_samples: int = 1, *, guide: Any = None, seed: Any = 0,
               options: Any = DEFAULT_OPTIONS, observe: Any = None) -> Tensor:
        condition.check(self.spec)
        rows = condition.repeat(num_samples)
        z = options.temperature * as_noise(seed, rows.batch).normal(self.spec.horizon, self.spec.dim)
        x = self.normalizer.unnormalize(self._generate(z, self.normalizer.normalize(rows.values_BHD), rows.mask_BHD))
        x = torch.where(rows.mask_BHD, rows.values_BHD, x)
        if observe is not None:
            observe(x, x.new_zeros(1))
        return x.unflatten(0, (condition.batch, num_samples))

    def _generate(self, z: Tensor, x0: Tensor, known: Tensor) -> Tensor:
        return self.network(torch.where(known, x0, z), x0 * known, known, z.new_ones(1))


def test_a_family_with_the_documented_members_alone_is_trained_evaluated_sampled_and_measured(
        umaze: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "own", (OwnConfig, Own))
    settings = config()
    settings = replace(settings, model=OwnConfig(),
                       planner=replace(settings.planner, arrival="fixed"))
    run = runs.train(settings, folder=tmp_path / "run", progress=False)
    assert isinstance(run.model, Own) and run.device == torch.device("cpu")
    check_model(run.model)
    for words in (("evaluate", "--episodes", 1, "--no-baselines"), ("sample", "--out", tmp_path / "plans.npz"),
                  ("measure", "--num", 8)):
        assert gentraj(words[0], run.folder, *words[1:]) == 0, words
    assert all(picture.image for picture in Drawing(run, run.folder, seed=0).samples())
    assert '"sampling": "Own"' in (run.folder / "evaluation.json").read_text()
