"""The presets with published settings beside plain implementations of the papers' updates, weight for weight.

What differs from the authors' code, such as the order of two steps, is in docs/notebook/published.md, and the same
here.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_policies import make
from torch import Tensor, nn

from gentraj.agents.policies.policy import Policy
from gentraj.agents.policies.scales import reward_scale
from gentraj.data import Episodes, Windows
from gentraj.networks import Perceptron
from gentraj.networks.mlp import EnsembleMLP
from gentraj.randomness import generator
from gentraj.runs.kinds.presets import PUBLISHED
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch

OBS, ACT, UPDATES = 3, 2, 4
Transitions = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # s, a, r, s', and 1 where s' is not terminal


def data() -> Episodes:
    """Eight episodes of ten steps, half of which terminate; the actions reach -1 and 1, so that they are not scaled."""
    rng, last = np.random.default_rng(0), np.arange(9, 80, 10)
    act = rng.uniform(-1, 1, (80, ACT))
    act[0], act[1] = -1, 1
    terminated, truncated = np.zeros(80, bool), np.zeros(80, bool)
    terminated[last[::2]], truncated[last[1::2]] = True, True
    return Episodes(rng.normal(1, 2, (88, OBS)), act, rng.normal(size=80), terminated, truncated, np.full(8, 10))


def policy_of(name: str, **settings: Any) -> Any:
    run: Any = PUBLISHED[name][1]
    config = run.policy
    model = replace(config.model, network=replace(config.model.network, width=8))
    return make(replace(config, model=model, critic=replace(config.critic, width=8), **settings), data()).train()


def model_of(policy: Policy) -> Any:
    assert policy.action_model is not None
    return policy.action_model.model


def transitions(policy: Policy, batch: Batch) -> Transitions:
    """What the papers' code draws from its buffer, computed from the arrays."""
    obs, act, reward = batch.x_BHD[..., :OBS], batch.x_BHD[:, 0, OBS:], batch.reward_BH
    assert reward is not None and batch.terminal_BH is not None
    states = (obs - policy.scales.obs.shift_D) / policy.scales.obs.scale_D
    earned = (reward[:, 0] - policy.scales.reward.shift_D) / policy.scales.reward.scale_D
    return (states[:, 0], act, earned, states[:, 1], 1.0 - batch.terminal_BH[:, 1].float())


def sequential(widths: Sequence[int], activation: Callable[[], nn.Module], norm: bool = False) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        layers += [nn.Linear(i, o), activation(), *([nn.LayerNorm(o)] if norm else [])]
    return nn.Sequential(*layers[: -2 if norm else -1])


@torch.no_grad()
def members(ensemble: EnsembleMLP, activation: Callable[[], nn.Module]) -> nn.ModuleList:
    """Each member of an ensemble as layers of torch."""
    copies = nn.ModuleList()
    for e in range(len(ensemble.weight[0])):
        widths = [ensemble.weight[0].shape[1], *(weight.shape[2] for weight in ensemble.weight)]
        plain = sequential(widths, activation, ensemble.norm == "after")
        for layer, weight, bias in zip([m for m in plain if isinstance(m, nn.Linear)], ensemble.weight, ensemble.bias,
                                       strict=True):
            layer.weight.copy_(weight[e].T)
            layer.bias.copy_(bias[e, 0])
        norms = [m for m in plain if isinstance(m, nn.LayerNorm)]
        for layer, scale, shift in zip(norms, getattr(ensemble, "scale", []), getattr(ensemble, "shift", []),
                                       strict=True):
            layer.weight.copy_(scale[e, 0])
            layer.bias.copy_(shift[e, 0])
        copies.append(plain)
    return copies


@torch.no_grad()
def actor(network: Perceptron, activation: Callable[[], nn.Module], inputs: int) -> nn.Sequential:
    """The first inputs (state, and noise if there is some) and the actions of a perceptron as layers of torch."""
    plain = sequential([inputs, *[network.config.width] * network.config.depth, ACT], activation)
    ours = [network.first, *network.hidden, network.out]
    linear = [m for m in plain if isinstance(m, nn.Linear)]
    for mine, layer in zip(linear, ours, strict=True):
        last, first = layer is network.out, layer is network.first
        mine.weight.copy_(layer.weight[-ACT:] if last else layer.weight[:, :inputs] if first else layer.weight)
        mine.bias.copy_(layer.bias[-ACT:] if last else layer.bias)
    return plain


def assert_same(ours: nn.Module, plain: nn.Module, activation: Callable[[], nn.Module]) -> None:
    """A weight moves by about 1e-3 in the updates here; Adam magnifies the rounding of gradients of nearly 0."""
    copied: Any = (members(ours, activation) if isinstance(ours, EnsembleMLP)
                   else actor(ours, activation, plain[0].in_features))  # type: ignore[arg-type,index,union-attr]
    for mine, theirs in zip(copied.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=5e-5)


def adam(*modules: nn.Module | nn.Parameter) -> torch.optim.Adam:
    parameters = [p for m in modules for p in (m.parameters() if isinstance(m, nn.Module) else [m])]
    return torch.optim.Adam(parameters, 3e-4)


def step(loss: Tensor, optimizer: torch.optim.Optimizer, norm: float | None = None) -> None:
    optimizer.zero_grad()
    loss.backward()
    if norm is not None:
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], norm)
    optimizer.step()


@torch.no_grad()
def follow(target: nn.Module, network: nn.Module, tau: float) -> None:
    for mine, theirs in zip(target.parameters(), network.parameters(), strict=True):
        mine.lerp_(theirs, tau)


def both(networks: nn.ModuleList, *inputs: Tensor) -> Tensor:
    """(E, B) values."""
    return torch.stack([net(torch.cat(inputs, -1))[:, 0] for net in networks])


def batches(policy: Policy) -> list[Batch]:
    windows = Windows(data(), policy.spec)
    return [windows.batch(i, 0, 32) for i in range(UPDATES)]


def test_iql_is_its_paper_s() -> None:
    policy = policy_of("iql-published")
    q, value = members(policy.critic.q, nn.ReLU), members(policy.value, nn.ReLU)[0]
    target = members(policy.critic.q, nn.ReLU)
    mu, log_std = actor(model_of(policy).network, nn.ReLU, OBS), nn.Parameter(torch.zeros(ACT))
    optimizers, own = policy.optimizers(), (adam(q), adam(value), adam(mu, log_std))
    for i, batch in enumerate(batches(policy)):
        policy.update(TrainingStep(batch, optimizers, generator(i)))
        s, a, r, s1, alive = transitions(policy, batch)
        advantage = both(target, s, a).amin(0).detach() - value(s)[:, 0]
        step((torch.where(advantage > 0, 0.7, 0.3) * advantage**2).mean(), own[1])
        goal = (r + 0.99 * alive * value(s1)[:, 0]).detach()
        step(((both(q, s, a) - goal) ** 2).sum(0).mean(), own[0])
        if i == 0:
            target.load_state_dict(q.state_dict())  # the first update of an average copies
        follow(target, q, 0.005 if i else 1.0)
        normal = torch.distributions.Normal(mu(s).tanh(), log_std.clamp(-5, 2).exp())
        weight = (3 * advantage.detach()).exp().clamp(max=100)
        step(-(weight * normal.log_prob(a).sum(-1)).mean(), own[2])
    assert_same(policy.critic.q, q, nn.ReLU)
    assert_same(policy.value, nn.ModuleList([value]), nn.ReLU)
    assert_same(model_of(policy).network, mu, nn.ReLU)
    torch.testing.assert_close(model_of(policy).network.log_sigma[0, OBS:], log_std.data, rtol=0, atol=5e-5)
    s = transitions(policy, batches(policy)[0])[0]
    torch.testing.assert_close(policy.sample_actions(s, list(range(32)))[:, 0], mu(s).tanh().detach())


def test_td3bc_is_its_paper_s() -> None:
    policy = policy_of("td3bc-published")
    object.__setattr__(model_of(policy).config, "spread", 1e-4)  # the preset's 0.001 smooths the value a little
    q, target = members(policy.critic.q, nn.ReLU), members(policy.critic.q, nn.ReLU)
    mu, mu_target = (actor(model_of(policy).network, nn.ReLU, OBS) for _ in range(2))
    optimizers, own = policy.optimizers(), (adam(q), adam(mu))
    for i, batch in enumerate(batches(policy)):
        policy.update(TrainingStep(batch, optimizers, generator(i)))
        s, a, r, s1, alive = transitions(policy, batch)
        noise = (0.2 * torch.randn(32, ACT, generator=generator(i))).clamp(-0.5, 0.5)
        with torch.no_grad():
            next_a = (mu_target(s1).tanh() + noise).clamp(-1, 1)
            goal = r + 0.99 * alive * both(target, s1, next_a).amin(0)
        step(((both(q, s, a) - goal) ** 2).mean(1).sum(), own[0])
        if i % 2:
            pi = mu(s).tanh()
            first = both(q, s, pi)[0]
            step(F.mse_loss(pi, a) - 2.5 / first.abs().mean().detach() * first.mean(), own[1])
            follow(target, q, 1.0 if i == 1 else 0.005)
            follow(mu_target, mu, 1.0 if i == 1 else 0.005)
    assert_same(policy.critic.q, q, nn.ReLU)
    assert_same(model_of(policy).network, mu, nn.ReLU)
    assert_same(model_of(policy).ema.module, mu_target, nn.ReLU)


class Tanh(nn.GELU):
    """GELU by tanh, the default of JAX."""

    def __init__(self) -> None:
        super().__init__("tanh")


def test_fql_is_its_paper_s() -> None:
    policy = policy_of("fql-published")
    q, target = members(policy.critic.q, Tanh), members(policy.critic.q, Tanh)
    flow, student = (actor(model_of(policy).network, Tanh, OBS + ACT + 1) for _ in range(2))
    optimizers, own = policy.optimizers(), (adam(q), adam(flow), adam(student))

    def velocity(s: Tensor, x: Tensor, t_B1: Tensor) -> Tensor:
        """The network sees noisy actions of about unit size, and its output is the velocity in units of sqrt(2)."""
        return 2**0.5 * flow(torch.cat([s, x / ((1 - t_B1) ** 2 + t_B1**2).sqrt(), t_B1], -1))

    def one_step(s: Tensor, z: Tensor) -> Tensor:
        return student(torch.cat([s, z, torch.ones(32, 1)], -1))

    for i, batch in enumerate(batches(policy)):
        policy.update(TrainingStep(batch, optimizers, generator(i)))
        (s, a, r, s1, alive), g = transitions(policy, batch), generator(i)
        with torch.no_grad():
            next_a = one_step(s1, torch.randn(32, 1, ACT, generator=g)[:, 0]).clamp(-1, 1)
            goal = r + 0.99 * alive * both(target, s1, next_a).mean(0)
        step(((both(q, s, a) - goal) ** 2).mean(), own[0])
        follow(target, q, 0.005 if i else 1.0)
        t_B1, eps = flow_noise(g)
        step(((velocity(s, (1 - t_B1) * a + t_B1 * eps, t_B1) - (eps - a)) ** 2).mean(), own[1])
        z = torch.randn(32, 1, ACT, generator=g)[:, 0]
        with torch.no_grad():
            x = z
            for n in range(10, 0, -1):
                x = x - velocity(s, x, torch.full((32, 1), n / 10)) / 10
        acts = one_step(s, z)
        step(10 * ((acts - x.clamp(-1, 1)) ** 2).mean() - both(q, s, acts.clamp(-1, 1)).mean(), own[2])
    assert_same(policy.critic.q, q, Tanh)
    assert_same(model_of(policy).network, flow, Tanh)
    assert_same(policy.network, student, Tanh)


def flow_noise(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """The times (B, 1) and the noise of the actions that a model draws for its loss."""
    return torch.rand(32, generator=g)[:, None], torch.randn(32, 1, OBS + ACT, generator=g)[:, 0, OBS:]


def test_diffusion_ql_is_its_paper_s() -> None:
    backup = 3
    policy = policy_of("diffusion-ql-published", backup=backup)
    q, target = members(policy.critic.q, nn.Mish), members(policy.critic.q, nn.Mish)
    net, average = (actor(model_of(policy).network, nn.Mish, OBS + ACT + 16) for _ in range(2))
    time, time_average = (deepcopy(model_of(policy).network.time[1:]) for _ in range(2))
    optimizers, own = policy.optimizers(), (adam(q), adam(net, time))
    beta = 1 - torch.exp(-0.1 / 5 - 0.5 * 9.9 * (2 * torch.arange(1, 6) - 1) / 25)
    product = (1 - beta).cumprod(0)

    def noise_of(which: int, s: Tensor, x: Tensor, n_B: Tensor) -> Tensor:
        """The predicted noise at levels 0 to 4."""
        angle = n_B[:, None] * torch.exp(-np.log(10_000) * torch.arange(8) / 7)
        embedded = (time_average, time)[which](torch.cat([angle.sin(), angle.cos()], -1))
        return (average, net)[which](torch.cat([s, x, embedded], -1))

    def chain(which: int, s: Tensor, g: torch.Generator) -> Tensor:
        """Ho et al. 2020, algorithm 2, with the predicted action clipped."""
        def draw() -> Tensor:
            return torch.randn(len(s), 1, OBS + ACT, generator=g)[:, 0, OBS:]

        x = (1 - product[4]).sqrt() * draw()  # the noise that the data have there, and not quite 1
        for n in range(4, -1, -1):
            eps = noise_of(which, s, x, torch.full((len(s),), float(n)))
            x0 = ((x - (1 - product[n]).sqrt() * eps) / product[n].sqrt()).clamp(-1, 1)
            before = product[n - 1] if n else torch.ones(())
            x = (before.sqrt() * beta[n] * x0 + (1 - beta[n]).sqrt() * (1 - before) * x) / (1 - product[n])
            x = x + (beta[n] * (1 - before) / (1 - product[n])).sqrt() * draw() if n else x
        return x.clamp(-1, 1)

    for i, batch in enumerate(batches(policy)):
        policy.update(TrainingStep(batch, optimizers, generator(i)))
        (s, a, r, s1, alive), g = transitions(policy, batch), generator(i)
        with torch.no_grad():
            s_next = s1.repeat_interleave(backup, 0)
            value = both(target, s_next, chain(0, s_next, g)).view(2, 32, backup).amax(2).amin(0)
        step(((both(q, s, a) - (r + 0.99 * alive * value)) ** 2).mean(1).sum(), own[0], 5.0)
        follow(target, q, 0.005 if i else 1.0)
        t_B1, eps = flow_noise(g)
        n_B = (t_B1[:, 0] * 5).long()
        x = product[n_B].sqrt()[:, None] * a + (1 - product[n_B]).sqrt()[:, None] * eps
        loss = ((noise_of(1, s, x, n_B.float()) - eps) ** 2).mean()
        values = both(q, s, chain(1, s, g))
        one, other = values[torch.randperm(2, generator=g)]
        step(loss - one.mean() / other.abs().mean().detach(), own[1], 5.0)
        for mean, new in ((average, net), (time_average, time)):
            follow(mean, new, 0.001 if i else 1.0)
    assert_same(policy.critic.q, q, nn.Mish)
    assert_same(model_of(policy).network, net, nn.Mish)
    assert_same(model_of(policy).ema.module, average, nn.Mish)


def test_a_candidate_is_drawn_with_the_softmax_of_its_value() -> None:
    policy = policy_of("diffusion-ql-published")
    state, act_BNKA = torch.zeros(4_000, OBS), torch.linspace(-1, 1, 3)[:, None, None] * torch.ones(4_000, 3, 1, ACT)
    value_3 = policy.critic.target_value(state[:3], act_BNKA[0].flatten(1))
    chosen = policy.critic.best(state, act_BNKA, list(range(4_000)))[:, 0, 0]
    share_3 = torch.stack([(chosen == act).float().mean() for act in act_BNKA[0, :, 0, 0]])
    torch.testing.assert_close(share_3, value_3.softmax(0), rtol=0, atol=0.03)
    assert (policy.critic.best(state, act_BNKA)[:, 0, 0] == act_BNKA[0, value_3.argmax(), 0, 0]).all()


def test_rewards_are_scaled_as_each_paper_says() -> None:
    episodes = replace(data(), reward=np.repeat([1.0, 3.0, 2.0, 2.0], 20))
    assert reward_scale(episodes, "return-range") == (0, 20 / 1000)  # returns of 10 to 30
    assert reward_scale(episodes, "minus-one") == (1, 1) and reward_scale(episodes, "raw") == (0, 1)
    assert reward_scale(episodes, "rms")[1] == pytest.approx((18 / 4) ** 0.5)
    assert reward_scale(replace(episodes, reward=np.zeros(80)), "return-range") == (0, 1)
