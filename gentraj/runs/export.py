"""A whole decision as a program that needs no gentraj: observation, goal and noise in, actions out.

What a decision does with Python numbers (seeds, checks, how many steps) happens once, while it is traced; what is left
are operations on tensors that depend on the inputs, with the sampler unrolled.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from ..randomness import Tape

Decide = Callable[[Tensor, Tensor | None, Sequence[int]], Tensor]  # obs_BO, goal_BG, seeds -> act_BEA
CHECKS = 4  # batches of observations on which a program is compared with what it was made of
TOLERANCE = 1e-4  # of actions up to 1, and relative to larger ones, which float32 rounds by as much more


def export_decision(decide: Decide, obs_RO: Tensor, goal_RG: Tensor | None = None, batch: int = 1) -> ExportedProgram:
    """(obs_BO[, goal_BG], noise_M) -> act_BEA for `batch` observations, the noise standard normal.

    The rows given are examples: on the first it is traced, on the others compared. Raises ValueError for fewer than
    one batch, and where the program answers otherwise than `decide`: something in it then depends on the observation
    in a way that no program of fixed operations has.
    """
    if len(obs_RO) < batch or batch < 1:
        raise ValueError(f"{len(obs_RO)} example observations were given for a batch of {batch}; a batch of 1 to "
                         f"{len(obs_RO)} is expected")
    given = [x for x in (obs_RO, goal_RG) if x is not None]
    examples = [tuple(x[i : i + batch] for x in given) for i in range(0, len(obs_RO) - batch + 1, batch)][: CHECKS + 1]

    def run(*inputs: Tensor) -> Tensor:
        with torch.no_grad(), Tape(inputs[-1]):
            return decide(inputs[0], inputs[1] if goal_RG is not None else None, range(batch))

    noises = [noise_of(decide, *example, seeds=range(i, i + batch)) for i, example in enumerate(examples)]
    inputs = (*examples[0], noises[0])
    with torch.no_grad():
        traced = _trace(run, inputs)
        traced = _trace(torch.func.functionalize(traced), inputs)  # nothing is overwritten; gradients are traced by now
        _fold_constants(traced)
        program = torch.export.export(traced, inputs)
    for example, noise in zip(examples, noises, strict=True):
        expected = run(*example, noise)
        error = (program.module()(*example, noise) - expected).abs().max().item()
        if not error <= TOLERANCE * max(1.0, expected.abs().max().item()):
            raise ValueError(f"the exported decision differs by {error:.3g} from the agent's on another observation: "
                             "it depends on it in a way that cannot be exported, such as drawing rejected plans again")
    return program


def _trace(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> GraphModule:
    """Real numbers flow while it is traced, so that checks of them are passed instead of refused."""
    traced = make_fx(function, tracing_mode="real", _error_on_data_dependent_ops=False)(*inputs)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _fold_constants(traced: GraphModule) -> None:
    """What depends on no input, such as the noise levels of a sampler, becomes a number of the program."""
    known: dict[Node, Any] = {}
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(traced, node.target)
        elif node.op == "call_function" and all(x in known for x in node.all_input_nodes):
            args, kwargs = map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = node.target(*args, **kwargs)
    for node, value in known.items():
        if node.op == "call_function" and isinstance(value, Tensor) and not known.keys() >= node.users.keys():
            traced.register_buffer(name := f"folded_{node.name}", value.contiguous().clone())  # no view of another
            with traced.graph.inserting_before(node):
                node.replace_all_uses_with(traced.graph.get_attr(name))
    traced.graph.eliminate_dead_code()
    traced.recompile()


def noise_of(decide: Decide, obs_BO: Tensor, goal_BG: Tensor | None = None, *, seeds: Sequence[int]) -> Tensor:
    """(M,) the noise that seeds give a decision, as its program takes it."""
    with torch.no_grad(), Tape() as tape:
        decide(obs_BO, goal_BG, seeds)
    return tape.noise_M


def names(program: ExportedProgram) -> list[str]:
    """Of its inputs."""
    return ["obs", "goal", "noise"] if len(program.graph_signature.user_inputs) == 3 else ["obs", "noise"]


def signature(program: ExportedProgram) -> str:
    """Its inputs and their shapes, in words."""
    inputs, _ = cast(tuple, program.example_inputs)
    shapes = (f"{name} {tuple(x.shape)}" for name, x in zip(names(program), inputs, strict=True))
    return f"takes {', '.join(shapes)}, float32, the noise standard normal; gives the actions"


def to_onnx(program: ExportedProgram) -> bytes:
    """The program as an ONNX file of float32 inputs `obs`, `goal` (if it has one), `noise` and the output `act`.

    Raises ImportError without onnxscript.
    """
    try:
        import onnxscript  # noqa: F401  torch would say so later, in many lines
    except ImportError as error:
        raise ImportError("ONNX needs the extra onnx: pip install 'gentraj[onnx]'") from error
    with _quiet():
        made = torch.onnx.export(program, dynamo=True, input_names=names(program), output_names=["act"], verbose=False)
    return made.model_proto.SerializeToString()  # pyright: ignore[reportOptionalMemberAccess]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter has to say of packages that are not needed and of its own old calls."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(action="ignore"):
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def to_pt2(program: ExportedProgram) -> bytes:
    """The program as a file for `torch.export.load`."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()
