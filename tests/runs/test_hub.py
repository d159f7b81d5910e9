"""Runs by the Hugging Face hub's conventions: what is saved loads anywhere, and its card is true."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from unittest.mock import create_autospec

import huggingface_hub
import pytest
import torch
from huggingface_hub import HfApi, ModelCard, RepoUrl, snapshot_download
from small import edit, gentraj

from gentraj import from_pretrained, runs
from gentraj.config import ConfigError, read_json
from gentraj.training.checkpoint import CheckpointError
from gentraj.trajectory import Condition

NAME = "somebody/umaze"
SCORES = {"env_id": "PointMaze_UMaze-v3", "episodes": 2, "seeds": [0], "return_mean": 12.5, "return_iqm": 1e-05,
          "return_ci95": [-1.0, 26.0], "success_rate": 1 / 3, "first_hit_median": None, "latency_ms_p50": 1.5e300,
          "controller": {"return_mean": 200.0}, "random": None}


@pytest.fixture
def run_folder(small_run: Path, tmp_path: Path) -> Path:
    """A copy that may be changed: evaluated, with a figure and with a file that is none."""
    folder = shutil.copytree(small_run, tmp_path / "run")
    (folder / "evaluation.json").write_text(json.dumps(SCORES))
    (folder / "figures").mkdir()
    (folder / "figures" / "loss.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "figures" / "notes.txt").write_text("private")
    return folder


@pytest.fixture
def saved(run_folder: Path, tmp_path: Path) -> Path:
    return runs.load(run_folder).save_pretrained(tmp_path / "new" / "umaze")


def sample(run: runs.Run) -> torch.Tensor:
    return run.model.sample(Condition.empty(run.model.spec), 3, seed=5)


# -- what is saved


def test_what_was_saved_samples_the_same_bits_wherever_it_lies(run_folder: Path, saved: Path, tmp_path: Path) -> None:
    expected = sample(runs.load(run_folder))
    shutil.rmtree(run_folder)
    moved = Path(shutil.move(saved, tmp_path / "é elsewhere"))
    assert torch.equal(sample(from_pretrained(moved)), expected)
    assert gentraj("sample", moved, "--out", tmp_path / "a.npz") == 0
    again = runs.load(moved).save_pretrained(tmp_path / "again")  # it is a run, so it can be saved once more
    assert torch.equal(sample(runs.load(again)), expected)


def test_the_folder_holds_one_checkpoint_and_no_optimiser(saved: Path, capsys: pytest.CaptureFixture) -> None:
    files = {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()}
    weights = {f"step-00000006/{part}.safetensors" for part in ("model", "inverse", "arrival")}
    assert files == weights | {"step-00000006/meta.json", "config.json", "reference.safetensors", "metrics.jsonl",
                               "evaluation.json", "README.md", "figures/loss.png"}
    assert not list(saved.parent.glob(".tmp*"))
    assert gentraj("train", "--resume", saved, "--steps", 8) == 1
    assert "it was exported by save_pretrained" in capsys.readouterr().err


def test_nobody_learns_where_the_data_lay(run_folder: Path, tmp_path: Path) -> None:
    names = "/data/secret/maze.npz+D4RL/pointmaze/umaze-v2+tests/umaze-v0"
    edit(run_folder, lambda config: config["run"].update(dataset=names))
    saved = runs.load(run_folder).save_pretrained(tmp_path / "saved")
    assert runs.load(saved).config.dataset == "maze.npz+D4RL/pointmaze/umaze-v2+tests/umaze-v0"
    assert not [path for path in saved.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert ModelCard.load(saved / "README.md").data.datasets == ["maze.npz", "tests/umaze-v0"]  # what the hub can name


# -- the card


def test_the_card_holds_the_runs_own_scores_and_facts(saved: Path) -> None:
    card = ModelCard.load(saved / "README.md")
    assert (card.data.library_name, card.data.model_name) == ("gentraj", "umaze")
    assert {"gentraj", "diffusion"} <= set(card.data.tags)
    results = card.data.eval_results
    numbers = {key: value for key, value in SCORES.items() if isinstance(value, float)}
    assert {result.metric_type: result.metric_value for result in results} == numbers
    assert {result.dataset_name for result in results} == {SCORES["env_id"]}
    assert "| return (mean of episodes) | 12.5 | 200 |" in card.text
    assert not any(key in card.text for key in ("return_iqm", "first_hit", "first success"))  # words, no empty rows
    assert "![loss](figures/loss.png)" in card.text
    assert f"| timesteps of a trajectory | {runs.load(saved).model.spec.horizon} |" in card.text
    assert "```python\nimport gentraj\n\nrun = gentraj.from_pretrained('umaze')" in card.text
    assert read_json(saved / "evaluation.json") == SCORES


def test_a_card_without_evaluation_says_so(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "evaluation.json").unlink()
    card = ModelCard.load(runs.load(run_folder).save_pretrained(tmp_path / "saved") / "README.md")
    assert "This run was not evaluated: it has no scores." in card.text
    assert not {"model-index", "metrics"} & card.data.to_dict().keys()


@pytest.mark.parametrize(("step", "evaluated"), [(4, None), (6, 4)])
def test_a_checkpoint_is_not_credited_with_the_scores_of_another(run_folder: Path, tmp_path: Path, step: int,
                                                                evaluated: int | None) -> None:
    """An evaluation is of the newest checkpoint where it does not say."""
    (run_folder / "evaluation.json").write_text(json.dumps(SCORES | ({"step": evaluated} if evaluated else {})))
    saved = runs.load(run_folder, step=step).save_pretrained(tmp_path / "saved")
    card = ModelCard.load(saved / "README.md")
    assert f"the run's scores are those of step {evaluated or 6}, not of {step}" in card.text
    assert "12.5" not in card.content and not (saved / "evaluation.json").exists()
    assert (saved / "figures").exists() == (step == 6)
    steps = [json.loads(line)["step"] for line in (saved / "metrics.jsonl").read_text().splitlines()]
    assert steps == [3, 6][: step // 3]


def test_text_from_files_stays_text(run_folder: Path, tmp_path: Path) -> None:
    wild = 'x"\n---\nlicense: mit\n| <script>é\u2028'
    (run_folder / "evaluation.json").write_text(json.dumps(SCORES | {"env_id": wild}))
    card = ModelCard.load(runs.load(run_folder).save_pretrained(tmp_path / "a: 'b' - #c") / "README.md")
    assert card.data.eval_results[0].dataset_name == wild
    assert card.data.model_name == "a: 'b' - #c" and card.data.license is None
    assert "<script>" not in card.text


# -- what is refused


def test_a_folder_with_something_in_it_is_left_alone(run_folder: Path, tmp_path: Path) -> None:
    run, used, file = runs.load(run_folder), tmp_path / "used", tmp_path / "file"
    used.mkdir()
    (used / "README.md").write_text("mine")
    file.write_text("mine")
    for target in (used, file):
        with pytest.raises(CheckpointError, match="exists already and is no empty folder"):
            run.save_pretrained(target)
    with pytest.raises(CheckpointError, match="cannot be written"):
        run.save_pretrained(file / "inside")
    assert (used / "README.md").read_text() == file.read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert runs.load(run.save_pretrained(tmp_path / "empty")).step == 6


def test_a_run_whose_files_do_not_hold_leaves_nothing_behind(run_folder: Path, tmp_path: Path) -> None:
    run = runs.load(run_folder)
    (run_folder / "reference.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"reference\.safetensors"):
        run.save_pretrained(tmp_path / "new" / "saved")
    (run_folder / "evaluation.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no scores"):
        run.save_pretrained(tmp_path / "new" / "saved")
    with torch.no_grad():
        next(run.inverse.parameters()).add_(1)
    with pytest.raises(CheckpointError, match="the weights of 'inverse' are not those of its step 6 any more"):
        run.save_pretrained(tmp_path / "new" / "saved")
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("name", ["../../etc", "owner/name/more"])
def test_names_that_are_no_repository_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is asked of the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="is no folder here and no repository of the Hugging Face hub"):
        from_pretrained(name)


def test_without_the_hubs_library_a_folder_loads_and_a_repository_names_the_extra(
        saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = from_pretrained(saved)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert from_pretrained(saved).step == 6
    for use in (lambda: from_pretrained(NAME), lambda: run.push_to_hub(NAME)):
        with pytest.raises(ImportError, match=r"pip install 'gentraj\[hub\]'"):
            use()


# -- the hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    """A hub of one repository; what is fetched of it is a folder of links into a store of blobs, as the hub's cache
    is."""
    api, store = create_autospec(HfApi, instance=True), tmp_path / "store"

    def upload(*, folder_path: Path, delete_patterns: list[str], **_: object) -> None:
        for path in [path for pattern in delete_patterns for path in store.rglob(pattern)]:
            path.unlink(missing_ok=True)
        shutil.copytree(folder_path, store, dirs_exist_ok=True)

    def fetch(*_: object, **__: object) -> str:
        for path in store.rglob("*.*"):
            link = tmp_path / "snapshot" / path.relative_to(store)
            link.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                link.symlink_to(path)
        return str(tmp_path / "snapshot")

    api.create_repo.return_value = RepoUrl(f"https://huggingface.co/{NAME}")
    api.upload_folder.side_effect = upload
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", create_autospec(snapshot_download, side_effect=fetch))
    return api


def test_what_is_pushed_is_pulled_to_the_bit(small_run: Path, hub: HfApi, tmp_path: Path,
                                             capsys: pytest.CaptureFixture) -> None:
    """An earlier checkpoint is not hidden by a later one that was pushed before."""
    runs.load(small_run).push_to_hub("umaze")  # of the user who is logged in
    assert gentraj("hub", "push", small_run, NAME, "--step", 4, "--private") == 0
    assert capsys.readouterr().out.strip() == f"https://huggingface.co/{NAME}"
    hub.create_repo.assert_called_with(NAME, private=True, exist_ok=True)
    assert f"gentraj.from_pretrained('{NAME}')" in (tmp_path / "store/README.md").read_text()
    assert not list((tmp_path / "store").rglob("*optimizer*"))
    assert gentraj("hub", "pull", NAME, tmp_path / "pulled") == 0
    pulled, run = runs.load(tmp_path / "pulled"), runs.load(small_run, step=4)
    assert pulled.step == 4
    for name, component in pulled.components.items():
        expected = run.components[name].state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in component.state_dict().items())


def test_a_hub_that_refuses_or_is_out_of_reach_is_named(small_run: Path, hub: HfApi,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    hub.upload_folder.side_effect = OSError("you may\nnot write here")
    with pytest.raises(CheckpointError, match=f"'{NAME}' cannot be pushed .* you may not write here; log in"):
        runs.load(small_run).push_to_hub(NAME)
    offline = create_autospec(snapshot_download, side_effect=OSError("offline"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(CheckpointError, match=f"'{NAME}' is no folder here and cannot be fetched"):
        from_pretrained(NAME)
