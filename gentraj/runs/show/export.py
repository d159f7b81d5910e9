"""Exports a whole decision as a program that runs without gentraj: observation, goal and noise in, actions out.

The goal and the noise are inputs of decisions that take them.

What a decision computes with Python numbers (seeds, checks, the number of steps) is computed once, while the decision
is traced. The program has only the tensor operations that depend on its inputs, with the sampler unrolled.
"""

from __future__ import annotations

import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from gymnasium.spaces import Box
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from gentraj.agents.planning.planner import Planner
from gentraj.agents.policies.actor import Actor

from ...config import JsonObject
from ...files import check_output, write_file
from ...progress import busy, say
from ...randomness import Noise, RowNoise, Seeds
from ...trajectory import DEFAULT_OPTIONS, SamplingOptions
from ..kinds.run import Run, copy_of, examples, straight

Decide = Callable[[Tensor, Tensor | None, Seeds], Tensor]  # obs_BO, goal_BG, seeds or noise -> act_BEA
COMPARED_BATCHES = 5  # batches of observations on which a program is compared with the agent
NOTHING: JsonObject = {}
RANGES = "ranges"  # what the files call the ranges of the inputs
LARGEST_ERROR = 1e-4  # largest error of an action, times the largest action if that is above 1


def save_program(run: Run, path: Path | str, batch: int = 1, env: str | None = None,
                 options: SamplingOptions = DEFAULT_OPTIONS, action_space: Box | None = None) -> Path:
    """Writes one decision of the run as a program to a file; see `Run.export`. Says what the program takes."""
    path = Path(path)
    if path.suffix not in WRITERS:
        raise ValueError(f"path= is {path}; a file that ends in {' or '.join(WRITERS)} is expected")
    check_output(path, "path=")
    if path.suffix == ".onnx":
        require_onnx()
    with busy(f"exporting to {path}"):
        program = export_run(run, batch, env, options, action_space)
        write_file(path, WRITERS[path.suffix](program, input_ranges(run)))
    say(signature(program))
    if run.roadmap is not None:
        say("the program acts towards goals within reach; for farther ones, give it the places ahead, which "
            "gentraj.runs.ahead_of(run)(obs, goal) finds on the run's roadmap")
    return path


def export_run(run: Run, batch: int = 1, env_id: str | None = None, options: SamplingOptions = DEFAULT_OPTIONS,
               action_space: Box | None = None) -> ExportedProgram:
    """One decision of the run as a program for `batch` observations.

    Actions are bounded by `action_space` (for a robot without an environment), or else by the action space of `env_id`
    or of the run's own environment. A run with a roadmap decides for goals within reach, as `ahead_of(run)` gives them.
    The program runs on the CPU. Raises ValueError if the run cannot be exported.
    """
    if run.device.type != "cpu":
        run = copy_of(run, torch.device("cpu"))
    agent = straight(run).agent(action_space or run.action_space(env_id), options=options)
    if not isinstance(agent, Actor | Planner):
        raise ValueError(f"{run.description}, which plans by trying actions and cannot be exported; "
                         "export a planner or a policy")
    return export_decision(agent.decide, *examples(run), batch)


def export_decision(decide: Decide, obs_RO: Tensor, goal_RG: Tensor | None = None, batch: int = 1) -> ExportedProgram:
    """The program (obs_BO[, goal_BG][, noise_M]) -> act_BEA for B = `batch` observations, with standard normal noise,
    which a decision without noise, such as the mean of a policy, does not take.

    `obs_RO` and `goal_RG` are examples: the decision is traced on the first batch of them, and the program is compared
    with `decide` on some batches. Raises ValueError for fewer examples than one batch, and if the program's actions
    differ from those of `decide`, whose operations then depend on the observation.
    """
    if not 1 <= batch <= len(obs_RO):
        raise ValueError(f"the batch is {batch}; 1 to {len(obs_RO)}, the number of example observations, is expected")
    known = [x.split(batch) for x in (obs_RO, goal_RG) if x is not None]
    examples = list(zip(*known, strict=True))[: min(len(obs_RO) // batch, COMPARED_BATCHES)]  # without a partial one

    def run(*inputs: Tensor) -> Tensor:
        with torch.no_grad():
            goal = inputs[1] if goal_RG is not None else None
            return decide(inputs[0], goal, InputNoise(batch, inputs[len(known) :]))

    inputs, *others = [(*example, *noise_of(decide, *example, seeds=range(i, i + batch)))
                       for i, example in enumerate(examples)]
    with torch.no_grad():
        traced = _trace(run, inputs)
        traced = _trace(torch.func.functionalize(traced), inputs)  # without in-place operations; gradients are traced
        _fold_constants(traced)
        program = torch.export.export(traced, inputs)
    for example in (inputs, *others):
        expected = run(*example)
        error = (program.module()(*example) - expected).abs().max().item()
        if not error <= LARGEST_ERROR * max(1.0, expected.abs().max().item()):
            raise ValueError(f"the exported decision differs by {error:.3g} from the agent's on another observation: "
                             "its operations depend on the observation, as in sampling rejected plans again, and such "
                             "a decision cannot be exported")
    return program


def _distances(x: Tensor, y: Tensor, p: float, mode: int | None = None) -> Tensor:
    return torch.linalg.vector_norm(x[..., :, None, :] - y[..., None, :, :], p, dim=-1)


# Operations that ONNX does not know, and how they are made of others.
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {torch.ops.aten._cdist_forward.default: _distances}


def _trace(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> GraphModule:
    """Traces with real numbers, so that checks of values pass."""
    traced = make_fx(function, DECOMPOSITIONS, "real", _error_on_data_dependent_ops=False)(*inputs)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _fold_constants(traced: GraphModule) -> None:
    """Replaces what depends on no input, such as the noise levels of a sampler, by constants."""
    constants, views = dict[Node, Any](), set[Node]()
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            constants[node] = _contiguous(traced, node.target)
        elif node.op == "call_function" and all(x in constants for x in node.all_input_nodes):
            args, kwargs = map_arg((node.args, node.kwargs), constants.__getitem__)
            constants[node] = value = node.target(*args, **kwargs)
            if any(_share_memory(value, constants[x]) for x in node.all_input_nodes if x.op == "get_attr"):
                views.add(node)  # a weight's view is not stored beside the weight
    for node, value in constants.items():
        used = node not in views and not constants.keys() >= node.users.keys()
        if node.op == "call_function" and isinstance(value, Tensor) and used:
            traced.register_buffer(name := f"folded_{node.name}", value.contiguous().clone())  # no shared memory
            with traced.graph.inserting_before(node):
                node.replace_all_uses_with(traced.graph.get_attr(name))
    traced.graph.eliminate_dead_code()
    traced.recompile()


def _contiguous(traced: GraphModule, name: str) -> Any:
    """The attribute of this name, which is made contiguous if it is a tensor, as a file stores tensors."""
    value = getattr(traced, name)
    if isinstance(value, Tensor) and not value.is_contiguous():
        delattr(traced, name)
        traced.register_buffer(name, value.detach().contiguous())
    return getattr(traced, name)


def _share_memory(value: Any, other: Any) -> bool:
    tensors = isinstance(value, Tensor) and isinstance(other, Tensor)
    return tensors and value.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


class RecordedNoise(RowNoise):
    """Noise of seeds that is recorded in the order in which it is drawn, together with all that is derived of it."""

    def __init__(self, seeds: Sequence[int], drawn: list[Tensor]):
        super().__init__(seeds)
        self.drawn = drawn

    def normal(self, *shape: int) -> Tensor:
        self.drawn.append(super().normal(*shape))
        return self.drawn[-1]

    def of(self, seeds: Sequence[int]) -> RecordedNoise:
        return RecordedNoise(seeds, self.drawn)


class InputNoise(Noise):
    """Noise (M,), if there is any, that is the input of a program, in the order of `RecordedNoise`, together with all
    that is derived of it. Raises ValueError where it does not suffice."""

    def __init__(self, rows: int, noise: Sequence[Tensor]):
        super().__init__(rows)
        self.left = list(noise) or [torch.zeros(0)]  # not drawn so far; whatever is derived of it draws from it too

    def normal(self, *shape: int) -> Tensor:
        number = len(self) * math.prod(shape)
        if number > len(self.left[0]):
            raise ValueError(f"{len(self.left[0])} numbers of noise are left; {number} are needed")
        noise, self.left[0] = self.left[0][:number], self.left[0][number:]
        return noise.view(len(self), *shape)


def noise_of(decide: Decide, obs_BO: Tensor, goal_BG: Tensor | None = None, *, seeds: Sequence[int]) -> list[Tensor]:
    """The noise (M,) that a decision samples from these seeds, as input of the exported program; nothing, if it samples
    none."""
    drawn = list[Tensor]()
    with torch.no_grad():
        decide(obs_BO, goal_BG, RecordedNoise(seeds, drawn))
    return [torch.cat([part.flatten() for part in drawn])] if drawn else []


def inputs_of(program: ExportedProgram) -> dict[str, Tensor]:
    """Examples of the program's inputs, by their names."""
    examples, _ = program.example_inputs or ((), {})
    rows = iter(("obs", "goal"))
    return {next(rows) if x.dim() == 2 else "noise": x for x in examples}


def signature(program: ExportedProgram) -> str:
    """The inputs of the program and their shapes, in words."""
    inputs = inputs_of(program)
    shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in inputs.items())
    noise = ", the noise standard normal" if "noise" in inputs else ""
    return f"takes {shapes}, float32{noise}; gives the actions"


def input_ranges(run: Run) -> JsonObject:
    """The ranges of a run's data, which its program's inputs are compared with by who runs it.

    Of `obs`, where a history follows the present observation, and of `goal`, if it takes entries of an observation:
    `names` of the entries, `low` and `high` in the data, and `least` and `most`, beyond which a number is far off.
    """
    ranges, (_, goal_RG) = run.ranges(), examples(run)
    known = {"obs": ranges.described()}
    if goal_RG is not None and ranges.goal is not None and goal_RG.shape[1:] == ranges.goal.mid_O.shape:
        known["goal"] = ranges.goal.described()
    return known


def require_onnx() -> None:
    """Raises ImportError, which names them, for packages that are missing; torch reports them late, in many lines."""
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX needs {' and '.join(missing)}, not installed here: pip install 'gentraj[onnx]'")


def to_onnx(program: ExportedProgram, ranges: JsonObject = NOTHING) -> bytes:
    """The program as an ONNX file of float32 inputs `obs`, `goal` and `noise` (if it takes them) and the output `act`.

    Its metadata have the `ranges` (`input_ranges`) as JSON. Raises ImportError if onnx or onnxscript is not installed.
    """
    require_onnx()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of optional packages
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):  # of its own deprecated calls
        onnx = torch.onnx.export(program, dynamo=True, input_names=[*inputs_of(program)],
                                  output_names=["act"], verbose=False)
    model = onnx.model_proto  # pyright: ignore[reportOptionalMemberAccess]
    model.metadata_props.add(key=RANGES, value=json.dumps(ranges))
    return model.SerializeToString()


def to_pt2(program: ExportedProgram, ranges: JsonObject = NOTHING) -> bytes:
    """The program as a file for `torch.export.load`, whose extra file "ranges" has the `ranges` as JSON."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={RANGES: json.dumps(ranges)})
    return buffer.getvalue()


WRITERS = {".onnx": to_onnx, ".pt2": to_pt2}
"""What makes the file of a program, by its suffix."""
