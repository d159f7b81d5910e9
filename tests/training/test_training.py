"""The one loop: what it feeds the components, what it writes, and that nothing but (seed, step) decides."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from gentraj.config import ConfigError, from_json, to_json
from gentraj.data.episodes import Episodes, episodes_hash
from gentraj.training import RunStore, Trainer, TrainingConfig, TrainingData
from gentraj.training.checkpoint import CheckpointError, CheckpointWarning, load
from gentraj.training.log import read_metrics
from gentraj.training.loop import TrainingResult, check_same, deterministic_kernels
from gentraj.training.optimization import learning_rate_factor
from gentraj.training.step import TrainingStep
from gentraj.trajectory import Batch, TrajectorySpec


def episodes(**changes: object) -> Episodes:
    rng, lengths = np.random.default_rng(0), np.array([9, 14])
    ends = np.isin(np.arange(23), np.cumsum(lengths) - 1)
    made = Episodes(rng.normal(size=(25, 2)), rng.normal(size=(23, 1)), rng.normal(size=23), terminated=ends,
                    truncated=np.zeros(23, bool), lengths=lengths, extras={"goal": rng.normal(size=(25, 2))})
    return replace(made, **changes)


class Pair(nn.Module):
    """Two networks with an optimiser each, like a GAN or a policy and its critic; notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.spec, self.batch_size = TrajectorySpec(2, 1, 4), 5
        self.one, self.two = (nn.Linear(3, 3) for _ in range(2))
        for p in self.parameters():
            nn.init.constant_(p, 0.1)
        self.given: list[tuple[Batch, float, float, float]] = []
        self.autocast: list[bool] = []

    def optimizers(self) -> dict[str, Optimizer]:
        return {"one": AdamW(self.one.parameters(), lr=0.1), "two": AdamW(self.two.parameters(), lr=0.02)}

    def update(self, step: TrainingStep) -> dict[str, Tensor]:
        noise = torch.rand((), generator=step.generator)
        self.given.append((step.batch, noise.item(), *(o.param_groups[0]["lr"] for o in step.optimizers.values())))
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        assert self.training
        losses = {n: (getattr(self, n)(step.batch.x_BHD) - noise).square().mean() for n in step.optimizers}
        for name in step.optimizers:
            step.descend(losses[name], name, 1.0)
        return {name: loss.detach() for name, loss in losses.items()}


def run(folder: Path, components: dict[str, Pair] | None = None, *, resume: bool = False, on_log=None,
        **changes) -> TrainingResult:
    settings = {"steps": 10, "warmup": 3, "save_every": 4, "log_every": 3} | changes
    trainer = Trainer(components or {"pair": Pair()}, TrainingData(episodes()), TrainingConfig(**settings),
                      RunStore(folder, {"preset": "test"}), on_row=on_log, progress=False)
    return trainer.fit(resume)


def test_it_trains_and_saves(tmp_path: Path) -> None:
    component = Pair().eval()
    result = run(tmp_path, {"pair": component}, steps=200, save_every=100, log_every=100)
    first, last = read_metrics(tmp_path)
    assert last["pair/one"] < first["pair/one"] and result.metrics == last
    assert (result.step, result.checkpoint) == (200, tmp_path / "step-00000200")
    saved = load(tmp_path)
    assert all(torch.equal(saved.components["pair"][key], t) for key, t in component.state_dict().items())
    assert saved.meta["preset"] == "test" and saved.meta["dataset_hash"] == episodes_hash(episodes())
    assert from_json(TrainingConfig, saved.meta["training"]) == TrainingConfig(200, 3, 100, 100)


def test_rows_are_means_of_what_happened_since_the_row_before(tmp_path: Path) -> None:
    seen: list[float] = []

    class Noted(Pair):
        def update(self, step):
            metrics = super().update(step)
            seen.append(metrics["one"].item())
            return ({"rare": len(seen)} if len(seen) in (1, 2, 8) else {}) | metrics  # a number of Python

    shown: list[dict] = []
    run(tmp_path, {"pair": Noted()}, on_log=shown.append)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [3, 6, 9, 10] and shown == rows
    for row, steps in zip(rows, (seen[:3], seen[3:6], seen[6:9], seen[9:]), strict=True):
        assert row["pair/one"] == pytest.approx(sum(steps) / len(steps), rel=1e-12) and row["seconds"] >= 0
    assert [row.get("pair/rare") for row in rows] == [1.5, None, 8.0, None]


def test_time_in_which_others_have_the_processor_is_no_cpu_time_of_the_training(tmp_path: Path) -> None:
    class Waiting(Pair):
        def update(self, step):
            time.sleep(0.3)
            return super().update(step)

    run(tmp_path, {"pair": Waiting()}, steps=1, warmup=0)
    [row] = read_metrics(tmp_path)
    assert row["seconds"] > 0.3 > row["cpu_seconds"] > 0


@given(st.integers(0, 50), st.integers(1, 400))
def test_the_learning_rate_rises_then_falls(warmup: int, steps: int) -> None:
    """A straight line up to the full rate, times half a cosine down to nothing."""
    factors = [learning_rate_factor(step, warmup, steps) for step in range(steps)]
    cosine = [math.cos(math.pi * step / (2 * steps)) ** 2 for step in range(steps)]
    for step, (factor, fall) in enumerate(zip(factors, cosine, strict=True)):
        assert factor == pytest.approx(fall * ((step + 1) / warmup if step < warmup else 1))
    assert learning_rate_factor(steps, 0, steps) == pytest.approx(0)


def test_every_group_has_its_own_rate_times_the_factor(tmp_path: Path) -> None:
    component = Pair()
    run(tmp_path, {"pair": component})
    for step, (_, _, one, two) in enumerate(component.given):
        factor = learning_rate_factor(step, 3, 10)
        assert (one, two) == (0.1 * factor, 0.02 * factor)
    last = read_metrics(tmp_path)[-1]
    assert (last["pair/lr-one"], last["pair/lr-two"]) == component.given[-1][2:]


def test_a_share_of_the_windows_begins_early_and_a_resumed_training_may_draw_another_one(tmp_path: Path) -> None:
    long, late = Pair(), Pair()
    where = np.arange(201.0)[:, None].repeat(2, 1)
    data = Episodes(where, where[:200, :1], np.zeros(200), np.zeros(200, bool), np.zeros(200, bool), np.array([200]))
    for pair, settings in ((long, TrainingConfig(steps=40, min_episode_start_fraction=1.0)),
                           (late, TrainingConfig(steps=80))):
        Trainer({"pair": pair}, TrainingData(data), settings, RunStore(tmp_path), progress=False).fit(pair is late)
    first, second = (torch.cat([batch.x_BHD[:, 0, 0] for batch, *_ in pair.given]) for pair in (long, late))
    assert first.max() < 32 <= second.max() and len(first) == len(second) == 200


def test_a_component_does_not_depend_on_the_others(tmp_path: Path) -> None:
    alone, beside, other = Pair(), Pair(), Pair()
    run(tmp_path / "a", {"b": alone})
    run(tmp_path / "b", {"a": other, "b": beside})
    assert all(torch.equal(p, q) for p, q in zip(alone.parameters(), beside.parameters(), strict=True))
    assert alone.given[0][1] != other.given[0][1]
    assert not torch.equal(alone.given[0][0].x_BHD, other.given[0][0].x_BHD)


def test_the_seed_decides_and_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    components = [Pair(), Pair(), Pair()]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    run(tmp_path / "0", {"pair": components[0]})
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    run(tmp_path / "1", {"pair": components[1]})
    run(tmp_path / "2", {"pair": components[2]}, seed=1)
    zero, one, two = (torch.cat([p.flatten() for p in component.parameters()]) for component in components)
    assert torch.equal(zero, one) and not torch.equal(zero, two)


def test_bf16_is_automatic_mixed_precision(tmp_path: Path) -> None:
    plain, mixed = Pair(), Pair()
    run(tmp_path / "plain", {"pair": plain}, steps=1)
    run(tmp_path / "mixed", {"pair": mixed}, steps=1, bf16=True)
    assert (plain.autocast, mixed.autocast) == ([False], [True])


def test_threads_are_set_and_given_back(tmp_path: Path) -> None:
    before, used = torch.get_num_threads(), []
    run(tmp_path, threads=before + 1, on_log=lambda _: used.append(torch.get_num_threads()))
    assert used[0] == before + 1 and torch.get_num_threads() == before


def test_kernels_that_repeat_their_bits_are_asked_for_on_a_gpu_and_what_was_asked_for_before_comes_back(
        tmp_path: Path) -> None:
    def asked() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    used = list[tuple[bool, bool]]()
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        with deterministic_kernels():
            assert asked() == (True, False)
        assert asked() == (True, True)
        torch.use_deterministic_algorithms(False)
        run(tmp_path, steps=1, deterministic=True, on_log=lambda _: used.append(asked()))
        assert used == [(False, False)]
    finally:
        torch.use_deterministic_algorithms(True)


@pytest.mark.parametrize("component", [object(), nn.Linear(3, 3)])
def test_a_component_must_be_a_trainable_module(tmp_path: Path, component: object) -> None:
    with pytest.raises(TypeError, match=r"the component 'x' is \w+; an nn\.Module that is Trainable is expected"):
        run(tmp_path, {"x": component})  # type: ignore[dict-item]


def test_settings_that_may_change_and_those_that_may_not() -> None:
    old = {"training": to_json(TrainingConfig()), "config": {"training": {"steps": 1}, "sampler": {"steps": 5}}}
    for name in ("steps", "save_every", "log_every", "keep", "threads"):
        check_same(old, old | {"training": to_json(TrainingConfig(**{name: 7}))})
    check_same(old, old | {"config": {"training": {"steps": 2}, "sampler": {"steps": 5}}})
    with pytest.raises(ConfigError, match=r"config\.sampler\.steps was 5 and is 6; training\.warmup was 200 and is 7"):
        check_same(old, {"training": to_json(TrainingConfig(warmup=7)),
                         "config": {"training": {"steps": 1}, "sampler": {"steps": 6}}})


class Writing(Trainer):
    """Counts the checkpoints that are there when the folder is written."""

    def write_folder(self, resume: bool) -> None:
        self.counted = len(list(self.folder.glob("step-*")))


def test_the_folder_is_written_before_anything_is_saved_and_on_resume_only_if_all_fits(tmp_path: Path) -> None:
    for resume, warmup, counted in ((False, 3, 0), (True, 3, 2), (True, 2, None)):
        settings = TrainingConfig(steps=4 + 4 * resume, warmup=warmup)
        trainer = Writing({"pair": Pair()}, TrainingData(episodes()), settings, RunStore(tmp_path), progress=False)
        with pytest.raises(ConfigError, match="warmup") if counted is None else nullcontext():
            trainer.fit(resume)
        assert getattr(trainer, "counted", None) == counted


def test_nothing_is_lost_where_the_folder_was_moved_and_a_line_says_where_it_is(tmp_path: Path) -> None:
    folder, moved = tmp_path / "run", tmp_path / "moved"
    with pytest.warns(CheckpointWarning, match="run was moved or deleted .* checkpoints before step 4; if"):
        run(folder, on_log=lambda row: row["step"] == 2 and folder.rename(moved), steps=6, log_every=2)
    assert [row["step"] for row in read_metrics(moved)] == [2, 4] and load(folder).step == 6
    assert [row["step"] for row in read_metrics(folder)] == [6]
    for path in folder.glob("step-*"):
        path.rename(moved / path.name)
    run(moved, steps=8, log_every=2, resume=True)
    assert load(moved).step == 8


@pytest.mark.parametrize("stops", [[0, 3, 4], [5], [2, 2, 9, 50]])
def test_a_training_in_parts_has_the_bits_and_the_rows_of_one_in_one_piece(stops: list[int], tmp_path: Path) -> None:
    settings = TrainingConfig(steps=10, warmup=3, save_every=4, log_every=3, keep=20)
    whole, parts = (Trainer({"pair": Pair()}, TrainingData(episodes()), settings, RunStore(tmp_path / name),
                            progress=False) for name in ("whole", "parts"))
    whole.fit()
    for until in stops:
        assert parts.fit(until=until).step == min(until, 10) == load(parts.folder).step
    assert parts.fit().step == 10
    one, other = (load(trainer.folder) for trainer in (whole, parts))
    assert one.meta == other.meta
    for name, tensors in one.components.items():
        assert all(torch.equal(tensor, other.components[name][key]) for key, tensor in tensors.items())
    timeless = [[{key: value for key, value in row.items() if "seconds" not in key} for row in read_metrics(each)]
                for each in (whole.folder, parts.folder)]
    assert timeless[0] == timeless[1]


def test_a_part_that_failed_is_only_resumed_from_what_it_saved(tmp_path: Path) -> None:
    class Fails(Pair):
        def update(self, step):
            metrics = super().update(step)
            if len(self.given) == 4:
                raise RuntimeError("no memory")
            return metrics

    settings = TrainingConfig(5, warmup=3, save_every=4)
    trainer = Trainer({"pair": Fails()}, TrainingData(episodes()), settings, RunStore(tmp_path), progress=False)
    trainer.fit(until=3)
    with pytest.raises(RuntimeError, match="no memory"):
        trainer.fit()
    with pytest.raises(CheckpointError, match="holds a training already"):
        trainer.fit()
    assert trainer.fit(resume=True).step == 5


def test_an_optimiser_may_rest_in_its_first_steps(tmp_path: Path) -> None:
    """As that of a delayed actor does; torch would warn that its schedule goes on without it."""
    class Delayed(Pair):
        def update(self, step):
            rests = len(self.given) % 2 == 0
            return super().update(step.on(step.batch, {"two": step.optimizers["two"]}) if rests else step)

    run(tmp_path, {"pair": Delayed()}, steps=3)
    run(tmp_path, {"pair": Delayed()}, steps=6, resume=True)


def test_a_stage_may_be_overridden(tmp_path: Path) -> None:
    """Here the training ends, as if it were interrupted, once the loss is below a bound."""
    class UntilGood(Trainer):
        best = math.inf

        def train_component(self, trained):
            metrics = super().train_component(trained)
            self.best = min(self.best, metrics["pair/one"])
            return metrics

        def is_finished(self) -> bool:
            return super().is_finished() or self.best < 1.5

    settings = TrainingConfig(steps=1_000, warmup=0)
    trainer = UntilGood({"pair": Pair()}, TrainingData(episodes()), settings, RunStore(tmp_path), progress=False)
    assert 0 < trainer.fit().step < 1_000 and load(tmp_path).step == trainer.step
