"""The state of a component in training, and of modules and optimisers as named tensors, which checkpoints hold.

When it is restored, every name, shape and dtype must fit.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..trajectory import Batch
from .checkpoint import CheckpointError
from .optimization import NonFinite, scheduler_of
from .step import Trainable

ADAM_STATE = ("exp_avg", "exp_avg_sq", "step")


class Source(Protocol):
    """A source of batches, such as `Windows`: the same (step, seed, size) must give the same batch."""

    def batch(self, step: int, seed: int, size: int) -> Batch: ...


class ComponentState:
    """A component in training, with its batches, its optimisers and their schedules, and its random key.

    `module` is the component too. It is moved to `device`, which defaults to where it is.
    """

    def __init__(self, name: str, component: Trainable, module: nn.Module, source: Source,
                 device: torch.device | None = None):
        self.name = name
        self.component = component
        self.source = source
        self.device = device or next(module.parameters()).device
        self.module = module.to(self.device).train()
        self.optimizers = component.optimizers()
        self.schedulers = dict[str, LambdaLR]()
        # a key of the name alone, so that a component's random numbers do not depend on the other components
        self.key = zlib.crc32(name.encode())

    def schedule(self, step: int, warmup: int, steps: int) -> None:
        """Sets the learning rates of `step`, and their schedules up to the last of `steps` steps."""
        self.schedulers = {name: scheduler_of(each, step, warmup, steps) for name, each in self.optimizers.items()}

    def learning_rates(self) -> dict[str, float]:
        """The learning rate of the first group of each optimiser, by the names that they have in the log."""
        rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}
        if len(rates) == 1:
            return {f"{self.name}/lr": rate for rate in rates.values()}
        return {f"{self.name}/lr-{name}": rate for name, rate in rates.items()}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors that a checkpoint holds of this component. Raises `NonFinite` where a parameter is not finite."""
        for name, parameter in self.module.named_parameters():
            if not torch.isfinite(parameter).all():
                raise NonFinite(f"the parameter '{name}' is not finite")
        states = {f"{self.name}.{n}.optimizer": optimizer_tensors(o) for n, o in self.optimizers.items()}
        return {self.name: module_tensors(self.module)} | states

    def restore(self, saved: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copies what `tensors` gave into the component and its optimisers.

        Raises `CheckpointError` for tensors that do not fit, and where those of an optimiser are missing.
        """
        restore_module(self.module, saved.get(self.name, {}), self.name)
        for name, optimizer in self.optimizers.items():
            key = f"{self.name}.{name}.optimizer"
            if key not in saved:
                raise CheckpointError(f"the checkpoint has no '{key}': it was exported by save_pretrained, and its "
                                      "training cannot be resumed; train a new run")
            restore_optimizer(optimizer, saved[key], key)


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers by name, including those of an EMA and a normaliser; not copied."""
    return dict(module.state_dict())


def restore_module(module: nn.Module, tensors: Mapping[str, Tensor], name: str = "model") -> None:
    """Copies `tensors` into the module. Raises `CheckpointError`, changing nothing, for tensors that do not fit."""
    _check_fits({key: (t.shape, t.dtype) for key, t in module_tensors(module).items()}, tensors, name)
    module.load_state_dict(dict(tensors))


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The moments and step counts of Adam, named "{parameter index}.{exp_avg, exp_avg_sq or step}"; not copied.

    Learning rates and the like are settings and not state: whoever creates the optimiser sets them. Raises
    `CheckpointError` for an optimiser with another state than Adam's.
    """
    state = optimizer.state_dict()["state"]
    for entries in state.values():
        if set(entries) != set(ADAM_STATE):
            raise CheckpointError(f"{type(optimizer).__name__} keeps {', '.join(entries)}; only the state of Adam and "
                                  f"AdamW ({', '.join(ADAM_STATE)}) can be saved")
    return {f"{index}.{key}": entries[key] for index, entries in state.items() for key in ADAM_STATE}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], name: str = "optimizer") -> None:
    """Copies the result of `optimizer_tensors` into a fresh optimiser. Parameters never updated have no state.

    Raises `CheckpointError`, changing nothing, for tensors that do not fit.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    updated = {key.partition(".")[0] for key in tensors}
    expected = {}
    for index, p in enumerate(parameters):
        if str(index) in updated:
            expected |= {f"{index}.{key}": (p.shape, p.dtype) for key in ADAM_STATE if key != "step"}
            expected[f"{index}.step"] = (torch.Size(), torch.float32)
    _check_fits(expected, tensors, name)
    state = {int(index): {key: _laid_out(tensors[f"{index}.{key}"], parameters[int(index)]) for key in ADAM_STATE}
             for index in updated}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A copy with the parameter's layout in memory, in which the fused Adam walks through both."""
    like = tensor if tensor.shape != parameter.shape else parameter
    return torch.empty_like(like, dtype=tensor.dtype, requires_grad=False).copy_(tensor)


def _check_fits(expected: Mapping[str, tuple[torch.Size, torch.dtype]], given: Mapping[str, Tensor], name: str) -> None:
    """Raises `CheckpointError` for the first tensor that is missing, superfluous, or of another shape or dtype."""
    found = {key: (tensor.shape, tensor.dtype) for key, tensor in given.items()}
    for key in [*expected, *found]:
        if found.get(key) != expected.get(key):
            raise CheckpointError(f"the saved '{name}' does not fit: {key} is {found.get(key, 'missing')}; "
                                  f"{expected.get(key, 'no such tensor')} is expected")
