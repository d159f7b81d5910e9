"""A projection is feasible, nearest and idempotent, and a certificate tells the truth."""

from collections.abc import Callable
from itertools import pairwise, product

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from gentraj.constraints import (
    CONSTRAINTS,
    QUICK_BUDGETS,
    TOLERANCE,
    Acceleration,
    Blocks,
    Box,
    Circle,
    Constraint,
    Constraints,
    Projection,
    Speed,
)
from gentraj.constraints.keepout import largest_free_boxes
from gentraj.envs.tasks.maze import Maze
from gentraj.trajectory import Condition, TrajectorySpec

SPEC = TrajectorySpec(obs_dim=3, act_dim=1, horizon=6, stride=2)
WALLS = ((-0.5, -9.0), (0.5, -0.2)), ((0.5, 0.0), (2.0, 0.1))  # low and high of a wall and of a block beside it
Row = NDArray[np.float64]


def half_space(x: Tensor) -> Tensor:
    """x_00 + x_10 <= 0 of each trajectory: a user's constraint that no other one can say."""
    out = x.clone()
    out[:, :2, 0] -= (x[:, :2, 0].sum(1, keepdim=True) / 2).clamp(min=0)
    return out


def in_block(p: Row, low: tuple[float, ...], high: tuple[float, ...], margin: float) -> float:
    return min(min(p[i] - low[i] + margin, high[i] + margin - p[i]) for i in range(len(p)))


# An example of every constraint, and its violation by one trajectory x_HD as its definition says, in plain loops.
EXAMPLES: dict[str, tuple[Constraint, Callable[[Row], float]]] = {
    "box": (Box((-0.5, -0.3), 0.4, (0, 3)),
            lambda x: max(max(low - r[i], r[i] - 0.4) for r in x for i, low in ((0, -0.5), (3, -0.3)))),
    "circle": (Circle((0.2, 0.1), 0.6, (0, 2)),
               lambda x: max(0.6 - float(np.hypot(r[0] - 0.2, r[2] - 0.1)) for r in x)),
    "blocks": (Blocks(WALLS[0], WALLS[1], (0, 1), margin=0.05),
               lambda x: max(in_block(r[:2], low, high, 0.05) for r in x for low, high in zip(*WALLS, strict=True))),
    "speed": (Speed(3.0, (0, 1), dt=0.1),
              lambda x: max(float(np.linalg.norm(b[:2] - a[:2])) / 0.2 - 3 for a, b in pairwise(x))),
    "acceleration": (Acceleration(9.0, (1, 3), dt=0.1, per_dim=True),
                     lambda x: max(abs(x[h + 1, i] - 2 * x[h, i] + x[h - 1, i]) / 0.04 - 9
                                   for h in range(1, len(x) - 1) for i in (1, 3))),
    "projection": (Projection(half_space), lambda x: max(x[0, 0] + x[1, 0], 0) / np.sqrt(2)),
}
CONVEX = ["box", "speed", "acceleration", "projection"]
seeds = st.integers(0, 2**32 - 1)
each = pytest.mark.parametrize("name", CONSTRAINTS)
few = settings(max_examples=4, deadline=None)


def random(seed: int, rows: int = 7, spec: TrajectorySpec = SPEC, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(rows, spec.horizon, spec.dim, generator=torch.Generator().manual_seed(seed))


@each
@few
@given(seeds)
def test_the_certificate_agrees_with_the_definition(name: str, seed: int) -> None:
    constraint, definition = EXAMPLES[name]
    x = random(seed)
    worst = Constraints(SPEC, [constraint]).certificate(x).worst
    slow = [max(definition(row.double().numpy()), 0) for row in x]
    np.testing.assert_allclose(worst.numpy(), slow, rtol=1e-9, atol=1e-12)


@each
@few
@given(seeds)
def test_a_projection_is_feasible_and_what_is_feasible_stays(name: str, seed: int) -> None:
    constraint, _ = EXAMPLES[name]
    constraints, x = Constraints(SPEC, [constraint]), random(seed)
    y = constraints.project(x)
    assert constraints.certificate(y).worst.max() <= TOLERANCE
    assert torch.equal(constraints.project(y), y)
    feasible = constraints.certificate(x).worst <= 0
    assert torch.equal(y[feasible], x[feasible])
    others = [i for i in range(SPEC.dim) if i not in constraint.entries(SPEC)]
    assert torch.equal(y[..., others], x[..., others])


@pytest.mark.parametrize(("seed", "scale"), [(0, 1.0), (1, 1000.0)])
def test_all_at_once_hold_at_every_scale_and_known_entries_stay(seed: int, scale: float) -> None:
    x = random(seed, rows=3, scale=scale)
    together = [Box(-0.9 * scale, 0.8 * scale, (0, 1, 3)), Circle((0.0, 0.0), 0.5 * scale, (0, 1)),
                Speed(1.5 * scale, (0, 1), dt=0.5), Acceleration(3 * scale, (0, 1), dt=0.5)]
    constraints = Constraints(SPEC, together)
    start = torch.tensor([-0.7 * scale, 0.1 * scale, 0.3])
    condition = Condition.empty(SPEC, len(x)).with_obs(0, start).with_obs(-1, start[:2] * -1, dims=(0, 1))
    condition = condition.with_obs(3, torch.tensor([0.25]), dims=(2,))
    y = constraints.project(x, condition)
    assert constraints.certificate(y).worst.max() <= TOLERANCE
    assert torch.equal(y[condition.mask_BHD], condition.values_BHD[condition.mask_BHD])
    alone = constraints.project(x[1:2], condition[1:2])
    assert torch.equal(alone, y[1:2]), "a trajectory depends on those beside it"


@few
@given(seeds, st.sampled_from([["box"], ["speed"], ["acceleration"], ["projection"], CONVEX]))
def test_the_projection_on_convex_sets_is_that_of_scipy(seed: int, names: list[str]) -> None:
    x, start = random(seed, rows=1), torch.tensor([0.1, 0.2, -0.1])
    condition = Condition.empty(SPEC).with_obs(0, start).with_obs(4, torch.tensor([0.1, -0.7]), dims=(0, 2))
    y = Constraints(SPEC, [EXAMPLES[name][0] for name in names]).project(x, condition)[0].double().numpy()
    given = x[0].double().numpy()
    given[0, :3] = start.numpy()
    given[4, [0, 2]] = 0.1, -0.7

    def inside(flat: Row) -> Row:
        z = flat.reshape(given.shape)
        bent = np.diff(z[:, [1, 3]], n=2, axis=0).ravel()
        at = {"box": np.concatenate([z[:, 0] + 0.5, 0.4 - z[:, 0], z[:, 3] + 0.3, 0.4 - z[:, 3]]),
              "speed": 0.6**2 - (np.diff(z[:, :2], axis=0) ** 2).sum(1),
              "acceleration": np.concatenate([0.36 - bent, 0.36 + bent]), "projection": -(z[0, :1] + z[1, :1])}
        return np.concatenate([at[name] for name in names if name in at])

    def fixed(flat: Row) -> Row:
        z = flat.reshape(given.shape)
        return np.concatenate([z[0, :3] - given[0, :3], z[4, [0, 2]] - [0.1, -0.7]])

    rules = [{"type": "ineq", "fun": inside}, {"type": "eq", "fun": fixed}]
    solution = minimize(lambda z: ((z - given.ravel()) ** 2).sum(), given.ravel(), method="SLSQP",
                        jac=lambda z: 2 * (z - given.ravel()), constraints=rules,
                        options={"maxiter": 500, "ftol": 1e-10})
    assert solution.status in (0, 8), solution.message  # converged, or no step improves it any more
    np.testing.assert_allclose(y, solution.x.reshape(given.shape), atol=3e-4)


@few
@given(seeds)
def test_without_speeds_each_timestep_leaves_by_the_shortest_way(seed: int) -> None:
    x = random(seed)
    circle, blocks = Constraints(SPEC, [EXAMPLES["circle"][0]]), Constraints(SPEC, [EXAMPLES["blocks"][0]])
    away = x[..., [0, 2]] - torch.tensor([0.2, 0.1])
    out = away * (0.6 / away.norm(dim=-1, keepdim=True)).clamp(min=1) + torch.tensor([0.2, 0.1])
    torch.testing.assert_close(circle.project(x)[..., [0, 2]], out, rtol=0, atol=5e-6)
    positions, found = (at[..., :2].double().reshape(-1, 2).numpy() for at in (x, blocks.project(x)))
    faces = np.concatenate([np.array(WALLS[0]) - 0.05, np.array(WALLS[1]) + 0.05])
    for p, q in zip(positions, found, strict=True):
        corners = [np.array(c) for c in product(*([p[i], *faces[:, i]] for i in range(2)))]
        free = [c for c in corners if max(in_block(c, *block, 0.05) for block in zip(*WALLS, strict=True)) < 1e-9]
        assert np.linalg.norm(q - p) == pytest.approx(min(np.linalg.norm(c - p) for c in free), abs=5e-6)


@few
@given(seeds, st.integers(1, 3), st.integers(1, 7))
def test_the_largest_free_boxes_are_the_free_space(seed: int, d: int, walls: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(-1, 1, (walls, d))
    high = low + rng.uniform(0.1, 1, (walls, d))
    points = rng.uniform(-1.5, 2, (200, 1, d))
    free_low, free_high = largest_free_boxes(low, high)
    in_free = ((points > free_low) & (points < free_high)).all(2).any(1)
    assert (in_free == ~((points > low) & (points < high)).all(2).any(1)).all()


@pytest.mark.parametrize(("keep_out", "offset"), [
    (Circle((0.0, 0.0), 0.5, (0, 1)), 0.0), (Blocks((-0.5, -0.5), (0.5, 0.5), (0, 1)), 0.05)])
def test_a_plan_through_an_obstacle_goes_round_it(keep_out: Constraint, offset: float) -> None:
    """Each on its own, the nearest ways out are to both sides, further apart than a bounded speed reaches."""
    spec = TrajectorySpec(2, 0, 32)
    constraints = Constraints(spec, [keep_out, Speed(0.12, (0, 1), dt=1.0)])
    x = torch.stack([torch.linspace(-1, 1, 32), torch.full((32,), offset)], 1)[None]
    condition = Condition.empty(spec).with_obs(0, x[:, 0]).with_obs(-1, x[:, -1])
    y = constraints.project(x, condition)
    assert constraints.certificate(x).by_name["Speed"] == 0 < constraints.certificate(x).worst
    assert constraints.certificate(y).worst <= TOLERANCE


def test_what_cannot_be_satisfied_is_certified_so() -> None:
    spec = TrajectorySpec(2, 0, 8)
    wall = Blocks((-0.1, -9.0), (0.1, 9.0), (0, 1))
    constraints = Constraints(spec, [wall, Speed(0.2, (0, 1), dt=1.0)])
    condition = Condition.empty(spec).with_obs(0, torch.tensor([-0.5, 0.0])).with_obs(-1, torch.tensor([0.5, 0.0]))
    certificate = constraints.certificate(constraints.project(random(0, 1, spec), condition, QUICK_BUDGETS))
    assert not certificate.feasible.any()
    assert "0 of 1 trajectories are feasible" in str(certificate)


def test_nan_is_never_certified() -> None:
    x = random(0)
    x[1, 2, 0] = torch.nan
    for constraint, _ in (EXAMPLES["box"], EXAMPLES["blocks"], EXAMPLES["circle"], EXAMPLES["speed"]):
        assert not Constraints(SPEC, [constraint]).certificate(x).feasible[1]


def test_a_certificate_has_the_shape_of_the_samples_and_the_names_of_the_constraints() -> None:
    x = random(0, 6).view(2, 3, 6, 4)
    listed = Constraints(SPEC, [Box(-1, 1, (0,)), Box(-2, 2, (1,)), Speed(1.0, (0,), dt=0.1)]).certificate(x)
    assert list(listed.by_name) == ["Box", "Box 2", "Speed"]
    assert listed.worst.shape == listed.feasible.shape == (2, 3)
    assert torch.equal(listed.worst, torch.stack(list(listed.by_name.values())).amax(0))
    assert "Box 2 is violated by" in str(listed)
    named = Constraints(SPEC, {"arena": Box(-1, 1, (0,))})
    assert list(named.certificate(x).by_name) == ["arena"]
    with pytest.raises(ValueError, match=r"\(2, 3, 5, 4\) were given; \(\.\., 6, 4\) is expected"):
        named.certificate(x[:, :, :5])


@pytest.mark.parametrize(("seed", "scaling"), [(0, 1.0), (1, 4.0)])
def test_the_walls_of_a_maze_are_its_cells_and_all_beyond(seed: int, scaling: float) -> None:
    rng = np.random.default_rng(seed)
    cells = (rng.random((4, 5)) < 0.5).astype(int)
    cells[0, :2] = 0
    maze = Maze(cells.tolist(), scaling)
    positions = rng.uniform(-3.5, 3.5, (200, 2)) * scaling
    on_map = (np.abs(positions) < np.array([2.5, 2.0]) * scaling).all(1)
    free = on_map & maze.free.ravel()[maze.cell(positions)]
    depth = Blocks(*maze.wall_boxes(), (0, 1)).excess(torch.from_numpy(positions)[:, None], SPEC)[:, 0].numpy()
    assert ((depth <= 0) == free).all()
