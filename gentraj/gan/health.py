"""The health of a GAN's training: metrics of every step, moving averages, and warnings with symptom and remedy."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..training.parallel import mean_over_processes

AVERAGE_WEIGHT = 0.02  # weight of a step in the moving averages
FIRST_WARNING_STEP = 50  # the first step at which a dead or collapsed generator is reported
SETTLED_STEP = 500  # the first step at which all symptoms are: no training starts healthy
COVERAGE_NEIGHBOURS = 5
COPY_FRACTION = 0.01  # samples are copies if they are nearer than this fraction of the mean distance between data


class GANWarning(UserWarning):
    """A GAN's training shows a symptom; the message names it and a remedy."""


class Symptom(NamedTuple):
    """A range [low, high] outside of which a metric's moving average is a symptom, and the message about it.

    `early` is the wider range before the game has settled. None of the healthy trainings leaves it after 50 steps,
    while some start with little variety: a DiT ignores its noise at first.
    """

    metric: str
    low: float
    high: float
    message: str
    early: tuple[float, float] = (-float("inf"), float("inf"))


SYMPTOMS = (
    Symptom("spread", 0.4, 2.5, "the samples spread {value:.2g} times as wide as the data: the generator has collapsed "
            "or diverged; set the objective to relativistic with r1 and r2, or lower "
            "generator_learning.learning_rate", early=(0.1, 10.0)),
    Symptom("variety", 0.2, float("inf"), "two samples of one condition are {value:.2g} times as far apart as they are "
            "from the data: the generator almost ignores its noise; set energy_score to 10, or raise "
            "generator_learning.learning_rate"),
    Symptom("duplicates", 0.0, 0.5, "{value:.0%} of the samples are copies of others: the generator has collapsed; "
            "set the objective to relativistic with r1 and r2, and keep discriminator.minibatch_std",
            early=(0.0, 0.95)),
    Symptom("coverage", 0.15, 1.0, "only {value:.0%} of the data have a sample nearby: modes are missing; train "
            "longer, or set the objective to relativistic with r1 and r2"),
    Symptom("generator_slope", 1e-3, float("inf"), "the slope of the generator's objective is {value:.1g}: it is "
            "saturated, or the generator is not trained; set the objective to non-saturating or relativistic, and "
            "generator_learning.learning_rate to more than 0", early=(1e-5, float("inf"))),
)


class Health(nn.Module):
    """Moving averages of the symptoms' metrics. They are saved with the weights, so that a loaded GAN warns, too."""

    average: Tensor
    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(len(SYMPTOMS)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._warned: set[str] = set()

    def record(self, metrics: Mapping[str, Tensor]) -> None:
        """Updates the averages with the metrics of one step, and warns of new symptoms."""
        now = torch.stack([metrics[s.metric].detach().float() for s in SYMPTOMS]).to(self.average)
        self.steps += 1
        self.average.lerp_(mean_over_processes(now).to(now), torch.clamp(1 / self.steps, min=AVERAGE_WEIGHT).to(now))
        self.warn()

    def warn(self) -> None:
        """Warns once of each symptom."""
        for metric, message in self.symptoms().items():
            if metric not in self._warned:
                self._warned.add(metric)
                warnings.warn(f"step {int(self.steps)} of the GAN: {message}", GANWarning, stacklevel=3)

    def symptoms(self) -> dict[str, str]:
        """The present symptoms: metric -> message with symptom and remedy."""
        steps = int(self.steps)  # read once, as the averages are: each read waits for the device
        found = dict[str, str]()
        if steps < FIRST_WARNING_STEP:
            return found
        for symptom, value in zip(SYMPTOMS, self.average.tolist(), strict=True):
            low, high = symptom.early
            if steps >= SETTLED_STEP:
                low, high = symptom.low, symptom.high
            if not low <= value <= high:
                found[symptom.metric] = symptom.message.format(value=value)
        return found


@torch.no_grad()
def vital_signs(real: Tensor, fake: Tensor, free: Tensor) -> dict[str, Tensor]:
    """Metrics of one batch of data and samples (R, H, D), in normalised units, that have the same conditions.

    "spread" is the root mean variance of the samples over the batch, divided by that of the data. "duplicates" is the
    fraction of the samples that have a copy. "coverage" is the fraction of the data with a sample nearer than their 5th
    neighbour (Naeem et al. 2020, equation 9).
    """
    def spread(x: Tensor) -> Tensor:
        mean = (x * free).sum(0) / free.sum(0).clamp(min=1)
        return (((x - mean) ** 2 * free).sum() / free.sum().clamp(min=1)).sqrt()

    x, g = real.flatten(1).float(), fake.flatten(1).float()
    free_X = free.flatten(1).float()
    with torch.autocast(real.device.type, enabled=False):  # differences of squares need full precision
        between, among = distances(x, x, free_X), distances(g, g, free_X)
        across = distances(x, g, free_X)
    k = min(COVERAGE_NEIGHBOURS + 1, len(x))  # the nearest neighbour is the trajectory itself
    radius = between.kthvalue(k, 1).values
    copies = among.fill_diagonal_(torch.inf).amin(1) < COPY_FRACTION * between.mean()
    return {"spread": spread(fake) / spread(real).clamp(min=1e-12), "duplicates": copies.float().mean(),
            "coverage": (across.amin(1) <= radius).float().mean()}


def distances(x_RX: Tensor, y_RX: Tensor, free_RX: Tensor) -> Tensor:
    """The root mean square difference (R, R) of all pairs of rows, over the entries that are free in both."""
    x, y = x_RX * free_RX, y_RX * free_RX
    both = free_RX @ free_RX.T
    square = (x**2) @ free_RX.T + free_RX @ (y**2).T - 2 * x @ y.T
    return (square.clamp(min=0) / both.clamp(min=1)).sqrt()
