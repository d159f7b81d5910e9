"""What every network must obey, whichever entry of NETWORKS it is."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gentraj.networks import NETWORKS
from gentraj.networks.embedding import MAX_ROWS, MIN_ROWS, padded

DIM, CONTEXT, HORIZON = 5, 2, 8
every_network = pytest.mark.parametrize("config", NETWORKS.configs)


def make(config: type, horizon: int = HORIZON, context_dim: int = CONTEXT) -> torch.nn.Module:
    """A network whose weights are all moved, as training does: some start at zero and would hide what is behind."""
    g = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(0)
        net = NETWORKS.made_of(config())(DIM, horizon, context_dim, config())
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=g)
    return net


def inputs(rows: int = 3, horizon: int = HORIZON) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    x, known = torch.randn(2, rows, horizon, DIM, generator=g)
    mask = torch.rand(x.shape, generator=g) < 0.3
    return {"x": x, "known": known * mask, "mask": mask, "t": torch.rand(rows, generator=g),
            "context": torch.randn(rows, CONTEXT, generator=g)}


@every_network
@pytest.mark.parametrize("horizon", [4, 8, 20])
def test_a_network_keeps_the_shape(config: type, horizon: int) -> None:
    values = inputs(3, horizon)
    assert make(config, horizon)(*values.values()).shape == values["x"].shape


@every_network
def test_one_noise_level_may_stand_for_all_rows(config: type) -> None:
    net, values = make(config), inputs()
    x, known, mask, t, context = values.values()
    torch.testing.assert_close(net(x, known, mask, t[:1], context), net(x, known, mask, t[:1].expand(3), context))


@every_network
@pytest.mark.parametrize("changed", ["x", "known", "mask", "t", "context"])
def test_every_input_reaches_the_output(config: type, changed: str) -> None:
    net, values = make(config), inputs()
    before = net(*values.values())
    values[changed] = ~values[changed] if values[changed].dtype == torch.bool else values[changed] + 0.3
    assert ((net(*values.values()) - before).abs().amax((1, 2)) > 1e-4).all()


@every_network
def test_every_weight_reaches_the_output(config: type) -> None:
    net = make(config)
    net(*inputs().values()).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
        if parameter.ndim > 1:  # each output of the layer; the keys' bias alone moves nothing, by softmax's invariance
            assert parameter.grad.flatten(1).any(1).all(), name


@every_network
def test_an_absent_context_adds_nothing(config: type) -> None:
    net, (x, known, mask, t, context) = make(config), inputs().values()
    before, with_context = net(x, known, mask, t), net(x, known, mask, t, context)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith("context."):
                parameter.zero_()
    assert torch.equal(net(x, known, mask, t), before) and not torch.equal(with_context, before)
    torch.testing.assert_close(net(x, known, mask, t, context), before)


@every_network
def test_a_call_draws_no_random_number(config: type) -> None:
    """Otherwise a resumed training would differ from an uninterrupted one."""
    net, values = make(config).train(), inputs()
    state = torch.get_rng_state()
    net(*values.values())
    assert torch.equal(torch.get_rng_state(), state)


@every_network
def test_a_broken_row_leaves_the_others_alone(config: type) -> None:
    net, values = make(config), inputs()
    before = net(*values.values())
    values["x"][1] = torch.nan
    after = net(*values.values())
    assert after[1].isnan().all()
    torch.testing.assert_close(after[::2], before[::2])


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@every_network
@pytest.mark.usefixtures("threads")
def test_a_row_is_bit_equal_however_many_are_beside_it(config: type) -> None:
    net, values = make(config), inputs(16 * MIN_ROWS)
    with torch.no_grad():
        whole = net(*values.values())
        for rows in (1, 3, 5, 9):
            part = {name: value[: rows * MIN_ROWS] for name, value in values.items()}
            assert torch.equal(net(*part.values()), whole[: rows * MIN_ROWS]), rows


@pytest.mark.parametrize("rows", [1, MIN_ROWS - 1, MIN_ROWS, MIN_ROWS + 1, MAX_ROWS - 1])
def test_rows_are_padded_to_whole_blocks_by_repeating_the_first(rows: int) -> None:
    x = torch.arange(rows, dtype=torch.float32)[:, None]
    out = padded(x)
    assert len(out) % MIN_ROWS == 0 and rows <= len(out) < rows + MIN_ROWS
    assert torch.equal(out[:rows], x) and not out[rows:].any()
