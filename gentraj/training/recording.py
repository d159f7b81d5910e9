"""A component's update as one compiled graph: losses, gradients, optimiser steps and moving averages together.

The update is recorded once, as the tensor operations that it consists of, and each later step runs the compiled graph.
Batches, random numbers and learning rates are inputs of the graph; weights, averages and the optimisers' states are
changed in place. So the components have no code for it, and their checkpoints are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from operator import getitem
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..trajectory import Batch
from .optimization import checked_later, report

Compile = Callable[[fx.GraphModule], Callable[..., Sequence[Tensor]]]
Update = Callable[[Batch, dict[str, Optimizer], torch.Generator], dict[str, Tensor]]
FUSED_ADAMW = torch.ops.aten._fused_adamw_.tensor_lr  # compilers know it for a learning rate in Python only
READS = (Tensor.tolist, Tensor.numpy)  # they give numbers to Python without an operation
MASKED = torch.ops.aten.index  # its shape depends on its numbers where it is given a mask


@torch.library.custom_op("gentraj::adamw", mutates_args=("params", "means", "squares"),
                         schema="(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] means, Tensor(c!)[] squares, "
                                "Tensor[] steps, Tensor rate, float beta1, float beta2, float decay, float eps, "
                                "Tensor? found_inf) -> ()")
def adamw_(params: list[Tensor], grads: list[Tensor], means: list[Tensor], squares: list[Tensor], steps: list[Tensor],
           rate: Tensor, beta1: float, beta2: float, decay: float, eps: float, found_inf: Tensor | None) -> None:
    """The kernel of fused AdamW as an operation that every compiler leaves alone."""
    FUSED_ADAMW(params, grads, means, squares, [], steps, lr=rate, beta1=beta1, beta2=beta2, weight_decay=decay,
                eps=eps, amsgrad=False, maximize=False, found_inf=found_inf)


class NotRecordable(RuntimeError):
    """An update whose operations depend on numbers that it computes, so that one recording cannot stand for all."""


class Draw(NamedTuple):
    """A call of a random operation, without its generator."""

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, generator: torch.Generator) -> Tensor:
        return self.operation(*self.args, **self.kwargs, generator=generator)


class Recorder(TorchDispatchMode):
    """Records all tensor operations of a `with` block as a graph, and carries them out.

    `inputs` are the inputs of the graph, which random numbers join, and `state` are the tensors that may differ in each
    run. Raises `NotRecordable` where a number that depends on any of them is read, or decides a shape.
    """

    def __init__(self, inputs: Sequence[Tensor], state: Sequence[Tensor]):
        super().__init__()
        self.graph, self.constants, self.draws = fx.Graph(), nn.Module(), list[Draw]()
        self.last_input: fx.Node | None = None
        self.nodes, self.kept = dict[int, fx.Node](), list[Tensor]()  # by identity, so that all tensors are kept
        self.live, self.reads = set(map(place, state)), Reads(self)
        for tensor in inputs:
            self._input(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        given = tensors_of((args, kwargs))
        live = any(place(tensor) in self.live for tensor in given)
        if isinstance(kwargs.get("generator"), torch.Generator):
            return self._draw(func, args, kwargs, given)
        masked = func.overloadpacket is MASKED and any(tensor.dtype == torch.bool for tensor in given[1:])
        reads = torch.Tag.data_dependent_output in func.tags or masked or (
            torch.Tag.dynamic_output_shape in func.tags and func.overloadpacket is not MASKED)
        if live and reads:
            raise NotRecordable(f"it reads numbers that it computes ({func})")
        out = func(*args, **kwargs)
        if not (reads or func.namespace == "profiler"):
            self._record(func, args, kwargs, out)
        if live:
            self.live |= set(map(place, tensors_of((out, given if func._schema.is_mutable else ()))))
        return out

    def output(self, tensors: Sequence[Tensor]) -> fx.GraphModule:
        """The recorded graph, which returns these tensors."""
        self.graph.output([self._node(tensor) for tensor in tensors])
        self.graph.eliminate_dead_code()
        return fx.GraphModule(self.constants, self.graph)

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        nodes, named = map_aggregate(args, self._node), map_aggregate(kwargs, self._node)
        if func is FUSED_ADAMW:
            func, nodes, named = torch.ops.gentraj.adamw.default, *own_arguments(nodes, named)
        node = self.graph.call_function(func, nodes, named)
        if isinstance(out, Tensor):
            self._keep(out, node)
        elif isinstance(out, (tuple, list)):
            for i, each in enumerate(out):
                if isinstance(each, Tensor):
                    self._keep(each, self.graph.call_function(getitem, (node, i)))

    def _draw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor]) -> Tensor:
        if any(place(tensor) in self.live for tensor in given) or func._schema.is_mutable:
            raise NotRecordable(f"its random numbers depend on numbers that it computes ({func})")
        self.draws.append(Draw(func, args, {key: value for key, value in kwargs.items() if key != "generator"}))
        out = func(*args, **kwargs)
        self._input(out)
        return out

    def _input(self, tensor: Tensor) -> None:
        with self.graph.inserting_before(self.last_input.next if self.last_input else None):
            self.last_input = self.graph.placeholder(f"input{len(self.kept)}")
        self._keep(tensor, self.last_input)
        self.live.add(place(tensor))

    def _keep(self, tensor: Tensor, node: fx.Node) -> None:
        self.nodes[id(tensor)] = node
        self.kept.append(tensor)

    def _node(self, value: Any) -> Any:
        """The node of a tensor, a new one for a tensor that the block did not make; other values as they are."""
        if isinstance(value, Tensor) and id(value) not in self.nodes:
            name = f"tensor{len(self.kept)}"
            self.constants.register_buffer(name, value.detach())
            self._keep(value, self.graph.get_attr(name))
        return self.nodes[id(value)] if isinstance(value, Tensor) else value


class Reads(TorchFunctionMode):
    """Refuses to give numbers of a recording to Python by functions that are no operations."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        if func in READS and place(args[0]) in self.recorder.live:
            raise NotRecordable(f"it reads numbers that it computes ({func.__name__})")
        return func(*args, **(kwargs or {}))


class Recording:
    """An update of a module as a compiled graph, for batches of one shape."""

    def __init__(self, update: Update, module: nn.Module, compile: Compile, batch: Batch,
                 optimizers: dict[str, Optimizer], generator: torch.Generator):
        rates = learning_rates(optimizers)
        inputs, state = [*tensors_in(batch).values(), *rates], state_of(module, optimizers)
        with unchanged(state, generator):  # what Python keeps from one update to the next is there afterwards
            update(batch, optimizers, generator)
        torch.clear_autocast_cache()
        recorder = Recorder(inputs, state)
        with (unchanged(state, generator), as_tensors(optimizers, rates), checked_later(always=True) as checked,
              recorder, recorder.reads):
            metrics = update(batch, optimizers, generator)
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self.names, self.checked, self.draws = list(metrics), [name for name, _ in checked], recorder.draws
        self.run = compile(recorder.output([*metrics.values(), *(scalar for _, scalar in checked)]))

    @torch.no_grad()
    def __call__(self, batch: Batch, optimizers: Mapping[str, Optimizer],
                 generator: torch.Generator) -> dict[str, Tensor]:
        drawn = [draw(generator) for draw in self.draws]
        with torch.autocast(batch.x_BHD.device.type, enabled=False):  # its casts are a part of the graph
            scalars = self.run(*tensors_in(batch).values(), *learning_rates(optimizers), *drawn)
        report(list(zip(self.checked, scalars[len(self.names) :], strict=True)))
        return dict(zip(self.names, scalars, strict=False))


class RecordedUpdate:
    """The update of a module, recorded when a batch of a shape first comes.

    The first update of a training is not recorded, as it makes the states of the optimisers. A training that is killed
    and resumed thus runs the same graphs in the same steps.
    """

    def __init__(self, update: Update, module: nn.Module, compile: Compile):
        self.update, self.module, self.compile = update, module, compile
        self.recordings = dict[Any, Recording]()

    def __call__(self, batch: Batch, optimizers: dict[str, Optimizer], generator: torch.Generator) -> dict[str, Tensor]:
        if not all(optimizer.state for optimizer in optimizers.values()):
            return self.update(batch, optimizers, generator)
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in tensors_in(batch).items())
        if shapes not in self.recordings:
            self.recordings[shapes] = Recording(self.update, self.module, self.compile, batch, optimizers, generator)
        return self.recordings[shapes](batch, optimizers, generator)


def place(tensor: Tensor) -> int:
    """The address of the memory of a tensor, which its views share. Raises `NotRecordable` for a tensor without."""
    try:
        return tensor.untyped_storage().data_ptr()
    except RuntimeError:
        raise NotRecordable("it takes forward derivatives, some of whose tensors have no memory") from None


def tensors_of(values: Any) -> list[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    found = list[Tensor]()
    map_aggregate(values, lambda each: found.append(each) if isinstance(each, Tensor) else None)
    return found


def tensors_in(batch: Batch) -> dict[str, Tensor]:
    """The tensors of a batch, by the names of its fields."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def state_of(module: nn.Module, optimizers: Mapping[str, Optimizer]) -> list[Tensor]:
    """The tensors that an update may change."""
    states = [value for optimizer in optimizers.values() for state in optimizer.state.values()
              for value in state.values()]
    return [*module.parameters(), *module.buffers(), *tensors_of(states)]


def learning_rates(optimizers: Mapping[str, Optimizer]) -> list[Tensor]:
    """The learning rate of each group of parameters, in float64 as in Python."""
    groups = [group for optimizer in optimizers.values() for group in optimizer.param_groups]
    return [torch.tensor(group["lr"], dtype=torch.float64) for group in groups]


@contextmanager
def as_tensors(optimizers: Mapping[str, Optimizer], rates: Sequence[Tensor]) -> Iterator[None]:
    """Gives the optimisers these learning rates within the block."""
    groups = [group for optimizer in optimizers.values() for group in optimizer.param_groups]
    before = [group["lr"] for group in groups]
    try:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        yield
    finally:
        for group, rate in zip(groups, before, strict=True):
            group["lr"] = rate


@contextmanager
def unchanged(state: Sequence[Tensor], generator: torch.Generator) -> Iterator[None]:
    """Undoes what the block does to these tensors and to the generator."""
    saved, drawn = [tensor.detach().clone() for tensor in state], generator.get_state()
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, before in zip(state, saved, strict=True):
                tensor.copy_(before)
        generator.set_state(drawn)


def own_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of `adamw_` for those of torch's fused AdamW."""
    params, grads, means, squares, _, steps = args
    named = (kwargs[name] for name in ("lr", "beta1", "beta2", "weight_decay", "eps"))
    return (params, grads, means, squares, steps, *named, kwargs.get("found_inf")), {}
