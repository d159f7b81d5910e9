"""The state of modules and optimisers as named tensors, and strictly back: every name, shape and dtype must fit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .checkpoint import CheckpointError

ADAM_STATE = ("exp_avg", "exp_avg_sq", "step")


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, an EMA and a normaliser among them; not copied."""
    return dict(module.state_dict())


def restore_module(module: nn.Module, tensors: Mapping[str, Tensor], name: str = "model") -> None:
    """Copies `tensors` into the module. Raises `CheckpointError` naming what does not fit; nothing is changed then."""
    _check({key: (t.shape, t.dtype) for key, t in module_tensors(module).items()}, tensors, name)
    module.load_state_dict(dict(tensors))


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The moments and step counts of an Adam, as "{index of the parameter}.{exp_avg, exp_avg_sq or step}"; not copied.

    Learning rates and the like are settings, not state: they come from whoever makes the optimiser.
    """
    state = optimizer.state_dict()["state"]
    for entries in state.values():
        if set(entries) != set(ADAM_STATE):
            raise CheckpointError(f"{type(optimizer).__name__} keeps {', '.join(entries)}; only the state of Adam and "
                                  f"AdamW ({', '.join(ADAM_STATE)}) can be saved")
    return {f"{index}.{key}": entries[key] for index, entries in state.items() for key in ADAM_STATE}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], name: str = "optimizer") -> None:
    """Copies what `optimizer_tensors` gave into a fresh optimiser. A parameter that was never updated has no state.

    Raises `CheckpointError` naming what does not fit; nothing is changed then.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    updated = {key.partition(".")[0] for key in tensors}
    expected = {}
    for index, p in enumerate(parameters):
        if str(index) in updated:
            expected |= {f"{index}.{key}": (p.shape, p.dtype) for key in ADAM_STATE if key != "step"}
            expected[f"{index}.step"] = (torch.Size(), torch.float32)
    _check(expected, tensors, name)
    state = {int(index): {key: tensors[f"{index}.{key}"].clone() for key in ADAM_STATE} for index in updated}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _check(expected: Mapping[str, tuple[torch.Size, torch.dtype]], given: Mapping[str, Tensor], name: str) -> None:
    wrong = [f"{key} is missing" for key in expected if key not in given]
    wrong += [f"{key} is not expected" for key in given if key not in expected]
    for key, (shape, dtype) in expected.items():
        if key in given and (given[key].shape, given[key].dtype) != (shape, dtype):
            found = given[key]
            wrong.append(f"{key} is {tuple(found.shape)} {found.dtype}, not {tuple(shape)} {dtype}")
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(f"the saved '{name}' does not fit: {'; '.join(wrong[:3])}{more}")
