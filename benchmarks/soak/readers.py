"""What is fuzzed: for each reader the files that it is given, changed at random, and how they are read."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

import h5py
import numpy as np
import safetensors.torch
import torch

from gentraj.config import parse_json, read_json
from gentraj.data import Windows, load_episodes
from gentraj.data.commands import report as data_report
from gentraj.plots.page import write_report
from gentraj.runs import report
from gentraj.runs.folder import load, read_config, train
from gentraj.runs.model_card import Card, model_card, read_scores
from gentraj.training.checkpoint import meta_json
from gentraj.trajectory import TrajectorySpec

from .attempt import apart, attempt
from .material import DATASET, Material
from .mutations import change_array, change_arrays, change_bytes, change_json

Read = Callable[[], Any]


class Reader:
    """A kind of file. `change` changes files of `material` at random, and returns how they are read."""

    through = staticmethod(attempt)
    one_line = True
    """Whether the messages of refusals are single lines; the command makes them so."""

    def __init__(self, material: Material):
        self.material = material
        self.kept: dict[Path, bytes] = {}

    def change(self, random: Random) -> Read:
        raise NotImplementedError

    def write(self, path: Path, data: bytes) -> None:
        """Writes a file in the place of the original, which `restore` brings back."""
        self.kept.setdefault(path, path.read_bytes())
        path.write_bytes(data)

    def original(self, path: Path) -> bytes:
        return self.kept.get(path) or path.read_bytes()

    def restore(self) -> None:
        for path, data in self.kept.items():
            path.write_bytes(data)
        self.kept.clear()

    def once(self, random: Random) -> str:
        """Changes files, reads them and restores them. Returns "read" or "refused".

        Raises AssertionError as `attempt` does.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read = self.change(random)
                _, refusal = self.through(read, f"{type(self).__name__} {sorted(path.name for path in self.kept)}")
        finally:
            self.restore()
        whole = not self.one_line or "\n" not in refusal.strip()
        assert whole, f"{type(self).__name__}: a refusal of several lines: {refusal!r:.1000}"
        return "refused" if refusal else "read"


class Npz(Reader):
    """npz files in gentraj's, D4RL's and OGBench's layout."""

    def change(self, random: Random) -> Read:
        path = random.choice(self.material.npz)
        if random.random() < 0.3:
            self.write(path, change_bytes(path.read_bytes(), random))
        else:
            with np.load(path) as file:
                arrays = change_arrays({name: file[name] for name in file.files}, random)
            self.write(path, b"")
            with path.open("wb") as file:
                save: Callable[..., None] = random.choice((np.savez, np.savez_compressed))
                save(file, **arrays)
        return partial(use_data, path)


def use_data(source: Path | str) -> None:
    """What commands do with data: describe them, and train on windows of them."""
    data_report(source)
    episodes = load_episodes(source)
    Windows(episodes, TrajectorySpec(episodes.obs_dim, episodes.act_dim, 4)).batch(0, 0, 4)


class Hdf5(Reader):
    """HDF5 files in D4RL's layout, and Minari's with their metadata."""

    through = staticmethod(apart)

    def change(self, random: Random) -> Read:
        folder = self.material.minari
        path = random.choice([self.material.hdf5, folder / "main_data.hdf5", folder / "metadata.json"])
        if path.suffix == ".json":
            self.write(path, change_json(json.loads(path.read_bytes()), random).encode(errors="surrogatepass"))
        elif random.random() < 0.4:
            self.write(path, change_bytes(path.read_bytes(), random))
        else:
            self.write(path, path.read_bytes())
            with h5py.File(path, "r+") as file:
                change_hdf5(file, random)
        return partial(use_data, path if path == self.material.hdf5 else DATASET)


def change_hdf5(file: h5py.File, random: Random) -> None:
    """Changes one to three arrays of a file, or what lies in their places."""
    for _ in range(random.choice((1, 1, 2, 3))):
        names: list[str] = []
        file.visit(names.append)
        name = random.choice(names)
        node, how = cast(Any, file[name]), random.randrange(10)
        small = isinstance(node, h5py.Dataset) and node.dtype.kind != "O" and node.size is not None and node.size < 1e6
        array = change_array(node[()], random) if small else None
        del file[name]
        if array is not None and how < 6 and array.dtype.kind not in "UMV":
            file[name] = array
        elif how == 6:
            file.create_group(name)
        elif how == 7:
            file[name] = random.choice([h5py.SoftLink("/nowhere"), h5py.SoftLink("/" + names[0]),
                                        h5py.ExternalLink("/etc/passwd", "/x"), h5py.ExternalLink(file.filename, "/")])
        elif how == 8:
            shape = random.choice([(1 << 40,), (1 << 30, 10), (0,), (3, 0), ()])
            file.create_dataset(name, shape, random.choice(["f4", "f8", "i8", "b1", "S100000"]),
                                **({"chunks": True} if shape and 0 not in shape else {}))
        elif how == 9:
            file[name] = random.choice(["text", np.float32(1), h5py.Empty("f4"), [b"a", b"b"]])


class Config(Reader):
    """config.json, alone or in agreement with a forged checkpoint, and its settings as a file for `gentraj train`."""

    def change(self, random: Random) -> Read:
        run = self.material.run(random.choice(("planner", "policy", "world-model")))
        path, how = run / "config.json", random.randrange(4)
        if how == 0:
            self.write(path, change_bytes(path.read_bytes(), random))
        else:
            text = change_json(read_json(path), random)
            self.write(path, text.encode(errors="surrogatepass"))
            if how > 1:
                self._agree(run, text)
        return partial(use_run, run, resumes=random.random() < 0.2)

    def _agree(self, run: Path, text: str) -> None:
        """Puts the settings into the checkpoint too, with every hash right."""
        try:
            config = parse_json(text.encode(), "config")
            forge(self, run, lambda body: body["meta"].update(
                run={key: value for key, value in config["run"].items() if key in body["meta"]["run"]},
                data={**config["data"], "returns": []}))
        except (ValueError, KeyError, AttributeError, TypeError):
            pass  # what cannot be written is refused before it is compared


def forge(reader: Reader, run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the meta.json of the newest checkpoint, with its hash right."""
    path = sorted(run.glob("step-*"))[-1] / "meta.json"
    body = json.loads(reader.original(path))
    change(body)
    reader.write(path, meta_json(body))


def use_run(run: Path, resumes: bool = False) -> None:
    """What commands do with a run: read it, decide once, and go on with its training."""
    read_config(run)
    loaded = load(run)
    agent = loaded.agent(loaded.action_space())
    agent.reset(None, [0])
    agent.act(torch.zeros(1, loaded.data.obs_dim), None)
    if resumes:
        before = set(run.rglob("*"))
        try:
            # more steps, compilation and evaluations would only take time
            training = replace(loaded.config.training, steps=loaded.step, compile=False, eval_every=0)
            train(replace(loaded.config, training=training), run, resume=True, progress=False)
        finally:
            for path in set(run.rglob("*")) - before:
                path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)


class Checkpoint(Reader):
    """The tensors and the meta.json of a checkpoint, with every hash right."""

    def change(self, random: Random) -> Read:
        run = self.material.run(random.choice(("planner", "policy", "world-model")))
        step = sorted(run.glob("step-*"))[-1]
        if random.random() < 0.3:
            body = json.loads((step / "meta.json").read_bytes())
            text = change_json(body, random)
            try:
                self.write(step / "meta.json", meta_json(json.loads(text)))
            except (ValueError, TypeError, RecursionError):
                self.write(step / "meta.json", text.encode(errors="surrogatepass"))
        else:
            path = random.choice(sorted(step.glob("*.safetensors")))
            data = change_tensors(path.read_bytes(), random)
            self.write(path, data)
            forge(self, run, lambda body: body["files"].update({path.name: of_file(data)}))
        return partial(use_run, run, resumes=random.random() < 0.3)


def of_file(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def change_tensors(data: bytes, random: Random) -> bytes:
    """A safetensors file with changed bytes, a changed header, or changed tensors."""
    how = random.randrange(3)
    if how == 0:
        return change_bytes(data, random)
    if how == 1:
        size = int.from_bytes(data[:8], "little")
        header = change_json(json.loads(data[8 : 8 + size]), random).encode(errors="surrogatepass")
        return len(header).to_bytes(8, "little") + header + data[8 + size :]
    arrays = change_arrays({name: tensor.numpy() for name, tensor in safetensors.torch.load(data).items()}, random)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()
               if array.dtype.kind in "fiub" and array.dtype.isnative and array.dtype != np.uint64}
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})


class Reference(Reader):
    """reference.safetensors, with its hash right."""

    def change(self, random: Random) -> Read:
        run = self.material.run(random.choice(("planner", "world-model")))
        path, config = run / "reference.safetensors", run / "config.json"
        data = change_tensors(path.read_bytes(), random)
        self.write(path, data)
        forged = read_json(config) | {"reference_sha256": hashlib.sha256(data).hexdigest()}
        self.write(config, json.dumps(forged).encode())
        return partial(use_run, run)


class Results(Reader):
    """What a run's results are read from: evaluation.json, metrics.jsonl, scores.jsonl and provenance.json."""

    def change(self, random: Random) -> Read:
        run = self.material.run("planner")
        path = run / random.choice(("evaluation.json", "metrics.jsonl", "scores.jsonl", "provenance.json"))
        if random.random() < 0.2:
            self.write(path, change_bytes(path.read_bytes(), random))
        elif path.suffix == ".json":
            self.write(path, change_json(read_json(path), random).encode(errors="surrogatepass"))
        else:
            rows = [json.loads(line) for line in path.read_bytes().splitlines()]
            for row in rows:
                del row["crc32"]
            texts = [change_json(row, random) if random.random() < 0.5 else json.dumps(row) for row in rows]
            self.write(path, "\n".join(texts).encode(errors="surrogatepass") + b"\n")
        return partial(use_results, run, draws=random.randrange(100) == 57)  # figures take seconds


def use_results(run: Path, draws: bool) -> None:
    """What `gentraj report` and a model card show of them."""
    loaded = _loaded(run)
    scores, note = read_scores(run, loaded.step, loaded.step)
    drawing = report.Drawing(loaded, run.parent / "figures", 0)
    pictures = []
    if draws:
        pictures = [*report.drawn("Loss", drawing.loss), *report.drawn("Scores", partial(drawing.scores, scores, note))]
    write_report(run.parent / "page.html", "page", report.facts(loaded, scores), report._tables(loaded, scores),
                 pictures)
    metrics = drawing.metrics[-1] if drawing.metrics else {}
    model_card(loaded, Card("name", scores, note, metrics, [])).encode()


_runs: dict[Path, Any] = {}


def _loaded(run: Path) -> Any:
    if run not in _runs:
        _runs[run] = load(run)
    return _runs[run]
