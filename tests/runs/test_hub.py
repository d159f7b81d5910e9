"""Runs by the Hugging Face hub's conventions: what is saved loads anywhere, and its card is true."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, cached_assets_path, snapshot_download
from small import edit, gentraj

from gentraj import runs
from gentraj.config import ConfigError, read_json
from gentraj.runs.hub import from_pretrained, save_pretrained
from gentraj.training.checkpoint import CheckpointError, NothingSaved
from gentraj.trajectory import Condition

SCORES = {"env_id": "PointMaze_UMaze-v3", "episodes": 2, "seeds": [0], "return_mean": 12.5, "return_iqm": 1e-05,
          "return_ci95": [-1.0, 26.0], "success_rate": 1 / 3, "first_hit_median": None, "latency_ms_p50": 1.5e300,
          "controller": {"return_mean": 200.0}, "random": None}


@pytest.fixture
def run_folder(small_run: Path, tmp_path: Path) -> Path:
    """A copy that may be changed: evaluated, with a figure and with things that are no figures."""
    folder = shutil.copytree(small_run, tmp_path / "run")
    (folder / "evaluation.json").write_text(json.dumps(SCORES))
    (folder / "figures").mkdir()
    (folder / "figures" / "loss.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "figures" / "notes.txt").write_text("private")
    (folder / "figures" / "link.png").symlink_to("/etc/hostname")
    return folder


@pytest.fixture
def saved(run_folder: Path, tmp_path: Path) -> Path:
    return save_pretrained(runs.load(run_folder), tmp_path / "new" / "umaze")


def sample(run: runs.Run) -> torch.Tensor:
    return run.model.sample(Condition.empty(run.model.spec), 3, seed=5)


# -- what is saved


def test_what_was_saved_samples_the_same_bits_wherever_it_lies(run_folder: Path, saved: Path, tmp_path: Path) -> None:
    expected = sample(runs.load(run_folder))
    shutil.rmtree(run_folder)
    moved = Path(shutil.move(saved, tmp_path / "é elsewhere"))
    assert torch.equal(sample(from_pretrained(moved)), expected)
    assert torch.equal(sample(runs.load(moved)), expected)


def test_the_commands_take_a_pretrained_folder(saved: Path, tmp_path: Path) -> None:
    assert gentraj("sample", saved, "--out", tmp_path / "a.npz") == 0
    assert gentraj("evaluate", saved, "--episodes", 2, "--no-baselines") == 0
    again = save_pretrained(runs.load(saved), tmp_path / "again")  # it is a run, so it can be saved once more
    assert torch.equal(sample(runs.load(again)), sample(runs.load(saved)))


def test_the_folder_holds_one_checkpoint_and_no_optimiser(saved: Path) -> None:
    files = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    weights = {f"step-00000006/{part}.safetensors" for part in ("model", "inverse", "arrival")}
    assert files == weights | {"step-00000006/meta.json", "config.json", "reference.safetensors", "metrics.jsonl",
                               "evaluation.json", "README.md", "figures/loss.png"}
    assert not list(saved.parent.glob(".tmp*"))


def test_nobody_learns_where_the_data_lay(run_folder: Path, tmp_path: Path) -> None:
    names = "/home/somebody/secret/maze.npz+D4RL/pointmaze/umaze-v2+tests/umaze-v0"
    edit(run_folder, lambda config: config["run"].update(dataset=names))
    saved = save_pretrained(runs.load(run_folder), tmp_path / "saved")
    assert runs.load(saved).config.dataset == "maze.npz+D4RL/pointmaze/umaze-v2+tests/umaze-v0"
    assert not [path for path in saved.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert ModelCard.load(saved / "README.md").data.datasets == ["maze.npz", "tests/umaze-v0"]  # what the hub can name


# -- the card


def test_the_card_holds_the_runs_own_scores(saved: Path) -> None:
    card = ModelCard.load(saved / "README.md")
    assert (card.data.library_name, card.data.model_name) == ("gentraj", "umaze")
    assert {"gentraj", "diffusion"} <= set(card.data.tags)
    results = card.data.eval_results
    numbers = {key: value for key, value in SCORES.items() if isinstance(value, float)}
    assert {result.metric_type: result.metric_value for result in results} == numbers
    assert card.data.metrics == list(numbers)
    assert {result.dataset_name for result in results} == {SCORES["env_id"]}
    assert results[0].dataset_args == {"episodes": 2, "seeds": [0]}
    assert "| return (mean of episodes) | 12.5 | 200 |" in card.text
    assert not any(key in card.text for key in ("return_iqm", "first_hit", "first success"))  # words, no empty rows
    assert "does not say at which step it was made" in card.text and "![loss](figures/loss.png)" in card.text
    assert read_json(saved / "evaluation.json") == SCORES


def test_the_card_holds_the_runs_settings_and_losses(saved: Path) -> None:
    text, run = ModelCard.load(saved / "README.md").text, runs.load(saved)
    settings = json.loads(text.split("```json")[1].split("```")[0])
    assert settings == json.loads((saved / "config.json").read_text())["run"]
    last = json.loads((saved / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"| model/loss | {last['model/loss']:.4g} |" in text and f"step {last['step']}" in text
    assert f"| timesteps of a trajectory | {run.model.spec.horizon} |" in text
    assert "```python\nimport gentraj\n\nrun = gentraj.from_pretrained('umaze')" in text


def test_a_card_without_evaluation_says_so(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "evaluation.json").unlink()
    card = ModelCard.load(save_pretrained(runs.load(run_folder), tmp_path / "saved") / "README.md")
    assert "This run was not evaluated: it has no scores." in card.text
    assert not {"model-index", "metrics"} & card.data.to_dict().keys()


@pytest.mark.parametrize(("step", "evaluated"), [(4, None), (4, 6), (6, 4)])
def test_a_checkpoint_is_not_credited_with_the_scores_of_another(run_folder: Path, tmp_path: Path, step: int,
                                                                evaluated: int | None) -> None:
    """An evaluation is of the newest checkpoint where it does not say."""
    (run_folder / "evaluation.json").write_text(json.dumps(SCORES | ({"step": evaluated} if evaluated else {})))
    saved = save_pretrained(runs.load(run_folder, step=step), tmp_path / "saved")
    card = ModelCard.load(saved / "README.md")
    assert f"the run's scores are those of step {evaluated or 6}, not of {step}" in card.text
    assert "12.5" not in card.content and not (saved / "evaluation.json").exists()
    assert (saved / "figures").exists() == (step == 6)
    steps = [json.loads(line)["step"] for line in (saved / "metrics.jsonl").read_text().splitlines()]
    assert steps == [3, 6][: step // 3]


def test_an_evaluation_of_this_step_is_named_as_such(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "evaluation.json").write_text(json.dumps(SCORES | {"step": 6}))
    card = ModelCard.load(save_pretrained(runs.load(run_folder), tmp_path / "saved") / "README.md")
    assert "evaluation.json, made at step 6." in card.text
    assert "step" not in card.data.metrics


def test_text_from_files_stays_text(run_folder: Path, tmp_path: Path) -> None:
    wild = 'x"\n---\nlicense: mit\n| <script>é\u2028'
    (run_folder / "evaluation.json").write_text(json.dumps(SCORES | {"env_id": wild}))
    card = ModelCard.load(save_pretrained(runs.load(run_folder), tmp_path / "a: 'b' - #c") / "README.md")
    assert card.data.eval_results[0].dataset_name == wild
    assert card.data.model_name == "a: 'b' - #c" and card.data.license is None
    assert "<script>" not in card.text


# -- what is refused


def test_a_folder_with_something_in_it_is_left_alone(run_folder: Path, tmp_path: Path) -> None:
    run, used, file = runs.load(run_folder), tmp_path / "used", tmp_path / "file"
    used.mkdir()
    (used / "README.md").write_text("mine")
    file.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for target in (used, file, tmp_path / "link", run_folder):
        with pytest.raises(CheckpointError, match="exists already and is no empty folder; give a new one"):
            save_pretrained(run, target)
    with pytest.raises(CheckpointError, match="cannot be written: Not a directory"):
        save_pretrained(run, file / "inside")
    assert (used / "README.md").read_text() == file.read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert runs.load(save_pretrained(run, tmp_path / "empty")).step == 6


def test_a_run_whose_files_do_not_hold_leaves_nothing_behind(run_folder: Path, tmp_path: Path) -> None:
    run = runs.load(run_folder)
    (run_folder / "reference.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="is not what was saved"):
        save_pretrained(run, tmp_path / "new" / "saved")
    assert not list((tmp_path / "new").iterdir())
    (run_folder / "evaluation.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no scores"):
        save_pretrained(run, tmp_path / "new" / "saved")


def test_changed_weights_are_not_passed_off_as_the_evaluated_ones(run_folder: Path, tmp_path: Path) -> None:
    run = runs.load(run_folder)
    with torch.no_grad():
        next(run.inverse.parameters()).add_(1)
    with pytest.raises(CheckpointError, match="the weights of 'inverse' are not those of its step 6 any more"):
        save_pretrained(run, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("name", [
    "../../etc", "/etc/nothing", "owner/../name", "owner/name/more", "nothing", "a//b", "https://evil.example/a",
    "owner/na..me", "-o/x", ".o/x", "o/n\n", "~/x", "ö/x", "o--p/x", "o/x?y", "o\0/x", "o\\x/y", "a/" + "b" * 97])
def test_names_that_are_no_repository_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is asked of the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="is no folder here and no repository of the Hugging Face hub"):
        from_pretrained(name)


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(NothingSaved, match="no run there"):
        from_pretrained(tmp_path)


# -- the hub


class Hub:
    """Stands for snapshot_download: a folder of links into a store of blobs, as the hub's cache is."""

    def __init__(self, source: Path, cache: Path):
        self.source, self.cache, self.asked = source, cache, []

    def __call__(self, name: str, **options: object) -> str:
        self.asked.append((name, options["revision"]))
        commit = self.cache / "snapshots" / ("c" * 39 + str(options["revision"])[-1:])
        for i, path in enumerate(p for p in self.source.rglob("*") if p.is_file()):
            link, blob = commit / path.relative_to(self.source), self.cache / "blobs" / str(i)
            for place in (link, blob):
                place.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                shutil.copy(path, blob)
                link.symlink_to(blob)
        return str(commit)


def test_a_repository_is_fetched_once_and_is_a_run_folder_of_its_own(saved: Path, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(saved, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    monkeypatch.setattr("huggingface_hub.cached_assets_path",
                        partial(cached_assets_path, assets_dir=tmp_path / "assets"))
    first, again = from_pretrained("owner/umaze"), from_pretrained("owner/umaze")
    other = from_pretrained("owner/umaze", revision="v2")
    assert torch.equal(sample(first), sample(runs.load(saved)))
    assert first.folder == again.folder != other.folder and first.folder.is_relative_to(tmp_path / "assets")
    assert hub.asked == [("owner/umaze", None), ("owner/umaze", None), ("owner/umaze", "v2")]
    with pytest.raises(ValueError, match="is no revision"):
        from_pretrained("owner/umaze", revision="../../refs")


def test_a_repository_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download",
                        lambda name, **options: snapshot_download(name, cache_dir=tmp_path, **options))
    with pytest.raises(CheckpointError, match="'owner/name' is no folder here and cannot be fetched") as error:
        from_pretrained("owner/name")  # tests are offline: the library's own refusal
    assert "\n" not in str(error.value)


def test_without_the_hubs_library_a_folder_loads_and_a_repository_names_the_extra(
        saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert from_pretrained(saved).step == 6
    with pytest.raises(ImportError, match=r"pip install 'gentraj\[hub\]'"):
        from_pretrained("owner/name")


def test_what_was_saved_to_be_used_is_not_trained_on(saved: Path, capsys: pytest.CaptureFixture) -> None:
    """Its optimisers are missing: going on without them would be another training."""
    assert gentraj("train", "--resume", saved, "--steps", 8) == 1
    assert "it was exported by save_pretrained" in capsys.readouterr().err
