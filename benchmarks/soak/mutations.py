"""Random changes of JSON, of arrays and of bytes. All choices are those of the `Random` that is given."""

from __future__ import annotations

import copy
import json
import math
from random import Random
from typing import Any

import numpy as np

NUMBERS = [0, -0.0, 1, -1, 2, 3, 7, 0.5, 1e-320, 1e300, -1e300, 3.5e38, 2**31, 2**53 + 1, 2**63, -(2**63), 10**30,
           10**400, math.nan, math.inf, -math.inf]
TEXTS = ["", "a", "1", "null", "nan", "\0", "\ud800", "é中", "../../x", "/etc/passwd", "os.system", "x" * 5000, "%s{0}",
         "<script>", "a\nb", "1e999", "Hopper-v5", "gaussian", "diffusion", "gan", "planner", "policy", "world-model"]
TREES = [[], {}, [[]], {"": None}, [1, 2], [1.0, None], {"kind": "iql"}, None, True, False]
LITERALS = {"\1": "1e999", "\2": "-1e999", "\3": "1E400000", "\4": "1" * 5000, "\5": "-0",
            "\6": "[" * 3000 + "]" * 3000}
DTYPES = ["<f4", "<f8", ">f4", "<f2", "<i4", "<i8", "<u8", "|u1", "|b1", "<c8", "<U3", "|S4", "<M8[s]", "|V4", "f4,f4"]


def change_json(tree: Any, random: Random) -> str:
    """The JSON text of a tree of which one to three places were changed; it may hold what is no JSON."""
    tree = copy.deepcopy(tree)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = [(inner, key) for inner in _containers(tree) for key in _keys(inner)]
        if places:
            _change(*random.choice(places), random)
    text = json.dumps(tree)
    for mark, literal in LITERALS.items():
        text = text.replace(json.dumps(mark), literal)
    return text


def _containers(tree: Any) -> list[Any]:
    if not isinstance(tree, dict | list):
        return []
    return [tree, *(inner for value in (tree.values() if isinstance(tree, dict) else tree)
                    for inner in _containers(value))]


def _keys(inner: Any) -> list[Any]:
    return list(inner) if isinstance(inner, dict) else list(range(len(inner)))


def _change(inner: Any, key: Any, random: Random) -> None:
    """Changes the value at `key` of a list or dict, mostly to one of the same type."""
    how = random.randrange(10)
    if how < 6:
        inner[key] = similar(inner[key], random)
    elif how == 6:
        inner[key] = value(random)
    elif how == 7:
        del inner[key]
    elif how == 8 and isinstance(inner, dict):
        inner[random.choice(TEXTS)] = inner[key]
    elif isinstance(inner, dict):
        inner[key] = inner[random.choice(list(inner))]
    else:
        inner.extend(inner[: random.choice((1, 100))])


def similar(old: Any, random: Random) -> Any:
    """Another value of the same type."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, int | float):
        new = random.choice([old + 1, old - 1, old * 2, -old, old // 3, *NUMBERS])
        whole = isinstance(old, int) and isinstance(new, float) and math.isfinite(new) and random.random() < 0.8
        return int(new) if whole else new
    if isinstance(old, str):
        return random.choice([old + "x", old[1:], old.upper(), *TEXTS])
    return value(random)


def value(random: Random) -> Any:
    return copy.deepcopy(random.choice([*NUMBERS, *TEXTS, *TREES, *LITERALS]))


def change_bytes(data: bytes, random: Random) -> bytes:
    """The bytes after one to four changes: other bytes, a cut, a hole, a part twice, zeros, or all of them others."""
    for _ in range(random.choice((1, 1, 2, 4))):
        a, b = sorted((random.randrange(len(data) + 1), random.randrange(len(data) + 1)))
        how = random.randrange(7)
        if how < 3 and data:
            a = min(a, len(data) - 1)
            data = data[:a] + bytes([random.choice([data[a] ^ 1 << random.randrange(8), 0, 255, random.randrange(256)])]
                                    ) + data[a + 1 :]
        elif how == 3:
            data = data[:b]
        elif how == 4:
            data = data[:a] + data[min(b, a + 64) :]
        elif how == 5:
            data = data[:a] + data[a : a + 64] + data[a:]
        else:
            data = data[:a] + bytes(min(64, b - a)) + data[min(b, a + 64) :]
    return data


def change_arrays(arrays: dict[str, np.ndarray], random: Random) -> dict[str, np.ndarray]:
    """The arrays after one to three changes of their values, types, shapes, lengths and names."""
    arrays = {name: array.copy() for name, array in arrays.items()}
    for _ in range(random.choice((1, 1, 2, 3))):
        name = random.choice(sorted(arrays) or ["x"])
        array = arrays.pop(name, np.zeros(3))
        arrays[name] = change_array(array, random)
        how = random.randrange(12)
        if how == 0:
            del arrays[name]
        elif how == 1:
            arrays[random.choice([*TEXTS[1:4], "extras/goal", "extras/imagined", "extras/obs", "rewards", "valids",
                                  "timeouts", "format", "infos/goal"])] = arrays[name]
    return arrays


def change_array(array: np.ndarray, random: Random) -> np.ndarray:
    how = random.randrange(9)
    if how < 3:
        return with_value(array, random)
    if how == 3:
        return as_type(array, random.choice(DTYPES))
    if how == 4:
        return array[: random.choice((0, 1, len(array) - 1, len(array) // 2))] if array.ndim else array.reshape(1)
    if how == 5:
        return np.concatenate([array, array[-1:]]) if array.ndim else np.stack([array] * 3)
    if how == 6:
        return random.choice([array[None], array.reshape(-1), array[..., None], array.T,
                              array.reshape(-1)[:1].reshape(() if array.size else (0,))])
    if how == 7 and array.ndim > 1:
        return array[:, : random.choice((0, 1, array.shape[1] - 1))]
    return as_type(np.full(array.shape, random.choice([0, 1, -1, 2, math.nan, 1e30]), np.float64), array.dtype.str)


def with_value(array: np.ndarray, random: Random) -> np.ndarray:
    """One number in the array replaced."""
    if array.size == 0 or array.dtype.kind not in "fiub":
        return array
    with np.errstate(all="ignore"):
        number = np.asarray(random.choice([n for n in NUMBERS if abs(n) != 10**400]), np.float64).astype(array.dtype)
    array = array.copy()
    array.reshape(-1)[random.randrange(array.size)] = number
    return array


def as_type(array: np.ndarray, dtype: str) -> np.ndarray:
    """The array with another type; zeros where its values cannot be converted.

    numpy (2.4) ends the process when one of more than 500 byte strings is no date, so they are not converted to dates.
    """
    if array.dtype.kind == "S" and np.dtype(dtype).kind == "M":
        return np.zeros(array.shape, dtype)
    with np.errstate(all="ignore"):
        try:
            return array.astype(dtype)
        except (TypeError, ValueError, RuntimeError):
            return np.zeros(array.shape, dtype)
