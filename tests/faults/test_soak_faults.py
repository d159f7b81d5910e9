"""FAULTS 1, 4, 15, 17 and 40 in small: the first examples of `make soak` (benchmarks/soak), always the same ones."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_episodes

from benchmarks.soak import bits, flips, fuzzing, kills
from benchmarks.soak.__main__ import PARTS
from benchmarks.soak.material import Material, make
from benchmarks.soak.trainings import KINDS
from gentraj.cli import main
from gentraj.config import ConfigError, from_json, read_json
from gentraj.data import DataError, Episodes, load_episodes, save_minari, save_npz
from gentraj.data.commands import report
from gentraj.files import check_folder, check_output
from gentraj.runs.folder import located
from gentraj.runs.model_card import read_scores
from gentraj.runs.settings import DataFacts
from gentraj.training import TrainingConfig
from gentraj.training.checkpoint import CheckpointError, CheckpointWarning, load
from gentraj.training.log import LogWarning, line_of, read_metrics

EXAMPLES = {"npz": 60, "hdf5": 10, "config.json": 20, "checkpoint": 15, "reference.safetensors": 15, "results": 40,
            "command": 3}


@pytest.fixture(scope="module")
def material(hopper_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("material")
    shutil.copy(hopper_file, folder / "hopper.npz")
    return make(folder)


@pytest.fixture
def here(material: Material, monkeypatch: pytest.MonkeyPatch) -> Material:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(material.datasets))
    return material


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", fuzzing.READERS)
def test_hostile_input_is_read_or_refused_in_a_line(here: Material, name: str) -> None:
    outcomes = fuzzing.examples(fuzzing.READERS[name](here), EXAMPLES[name])
    assert outcomes.total() >= EXAMPLES[name] and outcomes["refused"]


def test_a_flipped_bit_is_never_read_as_something_else(here: Material) -> None:
    rng, seen = random.Random(0), set()
    for kind, target in flips.find_targets(here).items():
        original = target.through(target.read, kind)[0]
        assert original
        seen |= {flips.damage(kind, target, original, rng, cut) for cut in [True] * 3 + [False] * 12}
    assert seen == {"refused", "the same", "rows left out"}


@pytest.mark.parametrize("kind", ["bc-gan"])
def test_a_training_can_be_killed_at_random_and_resumed(kind: str, hopper_file: Path, tmp_path: Path) -> None:
    """FAULTS 1: through the functions of the soak, which tries all kinds."""
    shutil.copy(hopper_file, tmp_path / "hopper.npz")
    KINDS[kind](tmp_path, tmp_path / "whole")
    kills.killed(kind, tmp_path, tmp_path / "killed", [random.Random(kind).uniform(0.2, 1)])
    KINDS[kind](tmp_path, tmp_path / "killed")
    kills.compare(kind, bits.fingerprint(tmp_path / "whole"), bits.fingerprint(tmp_path / "killed"))


# -- what the soak has found


SCORES = {"return_mean": 1.0, "return_ci95": [0.5, 1.5]}


@pytest.mark.parametrize(("change", "problem"), [
    ({"return_mean": "1"}, "return_mean is '1'; a number is expected"), ({"return_mean": None}, "return_mean is None"),
    ({"return_ci95": [1.0]}, r"return_ci95 is \[1.0\]; a list of two numbers"), ({"returns": [1, "a"]}, "returns is"),
    ({"return_ci95": 3}, "return_ci95 is 3"), ({"agent": {}}, "agent is {}; a text"),
    ({"episodes": "2"}, "episodes is '2'; a whole number"),
    ({"failures": 3}, "failures is 3; a list"), ({"behaviour": [1]}, r"behaviour is \[1\]; an object of scores"),
    ({"controller": {"return_mean": None}}, "controller.return_mean is None; a number"), ({"step": 1.5}, "step is 1.5"),
    ({"return_mean": 10**400}, "return_mean is 10+")])
def test_15_hostile_scores_are_refused_before_they_are_shown(tmp_path: Path, change: dict, problem: str) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(SCORES | change))
    with pytest.raises(ConfigError, match=rf"evaluation.json: holds no scores \({problem}"):
        read_scores(tmp_path, 1, 1)


def test_4_a_changed_row_of_a_log_is_left_out_with_a_warning(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 0.25} for step in range(1, 4)]
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(b"".join(map(line_of, rows)))
    assert read_metrics(tmp_path) == rows
    for old, new in ((b'2, "loss": 0.25', b'2, "loss": 0.75'), (b'"step": 2', b'"stfp": 2'), (b"\n", b"\x0b")):
        whole = log.read_bytes()
        log.write_bytes(whole[: whole.rindex(old)] + new + whole[whole.rindex(old) + len(old) :])
        with pytest.warns(LogWarning, match="metrics.jsonl: 1 of 3 lines are damaged and are left out"):
            assert len(read_metrics(tmp_path)) == 2
        log.write_bytes(whole)
    log.write_bytes(whole[:-9])  # as a crash leaves it
    assert read_metrics(tmp_path) == rows[:2]


@pytest.mark.parametrize("step", [-1, -(2**63), 2**53, 10**400, True, 1.0, None])
def test_15_a_row_that_is_of_no_step_is_left_out_with_a_warning(tmp_path: Path, step: object) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 2}}\n{json.dumps({"step": step})}\n')
    with pytest.warns(LogWarning, match="metrics.jsonl: 1 of 2 lines are damaged and are left out"):
        assert read_metrics(tmp_path) == [{"step": 2}]


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".npz", "x" * 300 + "/y.hdf5", "x" * 5000 + "/y-v0", "\0",
                                  "\0.npz", "\0.hdf5", "~nobody-here/y.npz", "lerobot:" + "x" * 999 + "/y"])
def test_16_a_name_that_no_file_can_have_is_refused_as_one_of_no_file(name: str, tmp_path: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path))
    with pytest.raises(DataError) as caught:
        load_episodes(name)
    assert len(str(caught.value).splitlines()) == 1
    assert located(f"{name}+gentraj/a-v0", tmp_path).endswith(f"{name}+gentraj/a-v0")


@pytest.mark.parametrize("name", ["9" * 5000, "9" * 300, "\0"])
@pytest.mark.parametrize("check", [check_output, check_folder])
def test_40_a_place_that_no_file_can_have_is_refused_before_the_work(check, name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^--out is '.{,60}': (File name too long|.*null .*); give another"):
        check(tmp_path / name, "--out")


def test_15_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(r'{"command": "\ud800"}')
    with pytest.raises(ConfigError, match=r"a.json: is not valid JSON: .*surrogates"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(r'{"command": "\ud83d\ude00"}')
    assert read_json(tmp_path / "a.json") == {"command": "\U0001f600"}


def test_40_a_key_of_several_lines_is_told_in_one() -> None:
    with pytest.raises(ConfigError) as caught:
        from_json(TrainingConfig, {"a\nb\r\u2028c": 1}, "config.json")
    assert len(str(caught.value).splitlines()) == 1 and r"unknown key a\nb" in str(caught.value)


@pytest.mark.parametrize("error", [CheckpointError, ConfigError, DataError])
def test_40_a_name_of_several_lines_is_told_in_one(error: type[Exception]) -> None:
    """Such as that of a file in a checkpoint's meta.json."""
    assert str(error("'a\nb\u2028c\rd' is no name")) == r"'a\nb\nc\nd' is no name"


def test_15_the_name_of_a_tensor_file_of_several_lines_is_refused_in_one(tiny_run: Path, forge) -> None:
    forge(tiny_run / "step-00000060", {}, {"files": {"a\nb": {"size": 1, "sha256": "0" * 64}}})
    with pytest.warns(CheckpointWarning, match=r"'a\\nb' is not the name of a tensor file") as caught:
        assert load(tiny_run).step == 40
    assert all(len(str(each.message).splitlines()) == 1 for each in caught)


@pytest.mark.parametrize("change", [{"obs_dim": -1}, {"obs_dim": 2**63}, {"act_dim": 0}, {"context_dim": -1},
                                    {"goal_dims": (4,)}, {"goal_dims": (-1,)}])
def test_15_facts_of_the_data_that_cannot_be(change: dict) -> None:
    with pytest.raises(ValueError, match=f"DataFacts.{next(iter(change))} "):
        replace(DataFacts(4, 1, 0, (), (), None), **change)


def test_40_a_number_of_threads_that_torch_cannot_have() -> None:
    with pytest.raises(ValueError, match="threads is 9223372036854775808; a whole number from 0 to 10000"):
        TrainingConfig(threads=2**63)


ROWS = {"observations": np.zeros((6, 2)), "actions": np.zeros((6, 1)), "rewards": np.zeros(6),
        "terminals": np.zeros(6, bool), "timeouts": np.zeros(6, bool), "next_observations": np.zeros((6, 2))}
OGBENCH = {name: ROWS[name] for name in ("observations", "actions", "terminals")}


@pytest.mark.parametrize(("arrays", "problem"), [
    (ROWS | {"terminals": np.zeros((6, 2), bool)}, r"terminals has shape \(6, 2\); one number for each of 6 steps"),
    (ROWS | {"rewards": np.zeros((6, 2))}, r"rewards has shape \(6, 2\)"),
    (ROWS | {"actions": np.zeros(6, "<f4,<f4")}, r"actions has dtype \[.*; numbers are expected"),
    (ROWS | {"next_observations": np.zeros((6, 2), "U3")}, "next_observations has dtype <U3; numbers are expected"),
    (OGBENCH | {"terminals": np.zeros(6, "<f4,<f4")}, r"terminals has dtype \[.*; numbers are expected"),
    (OGBENCH | {"valids": np.ones((6, 2))}, r"timeouts has shape \(6, 2\)")])
def test_17_arrays_of_another_kind_are_named(tmp_path: Path, arrays: dict, problem: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=problem):
        load_episodes(tmp_path / "a.npz")


@pytest.mark.parametrize("key", ["terminated", "truncated", "obs", "lengths"])
def test_17_arrays_of_structures_are_named(key: str) -> None:
    with pytest.raises(DataError, match=rf"dataset: {key} has dtype \[.*; numbers are expected"):
        replace(tiny_episodes(), **{key: np.zeros(125, "<f4,<f4")})


@pytest.mark.parametrize("change", [{"format": np.ones(300, bool)}, {"env": np.array(["a", "b"])},
                                    {"obs_keys": np.zeros(3)}])
def test_17_text_of_another_kind_is_told_in_one_line(tmp_path: Path, change: dict) -> None:
    with np.load(save_npz(tiny_episodes(), tmp_path / "a.npz")) as file:
        arrays = {name: file[name] for name in file.files} | change
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=f"{next(iter(change))} is an array .*; text is expected") as caught:
        load_episodes(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


def test_20_a_wide_row_is_told_in_one_line() -> None:
    obs = np.zeros((128, 40))
    obs[3, 7] = np.nan
    with pytest.raises(DataError, match=r"step 3: obs is .*nan") as caught:
        replace(tiny_episodes(), obs=obs)
    assert "\n" not in str(caught.value)


def test_17_an_array_without_rows_is_described() -> None:
    e = tiny_episodes()
    lines, problems = report(Episodes(np.float32(3), e.act, e.reward, e.terminated, e.truncated, e.lengths,
                                      validate=False))
    assert problems and "obs has 0 dimensions" in lines


def test_4_a_changed_environment_in_minari_s_metadata_is_refused(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    save_minari(tiny_episodes(), "tiny-v0", description="tiny")
    path = tmp_path / "tiny-v0" / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    assert load_episodes("tiny-v0").num_steps == 125
    path.write_text(json.dumps(metadata | {"env_spec": '{"id": "Other-v0"}'}))
    with pytest.raises(DataError, match=r"metadata.json: .*environment and spaces differs.* remove env_sha256"):
        load_episodes("tiny-v0")


def test_12_a_word_too_long_for_a_path_is_refused_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "9" * 5000]) == 2
    assert "config.json" in (error := capsys.readouterr().err) and "Traceback" not in error


def test_every_reader_that_can_be_fuzzed_is_a_part_of_the_soak() -> None:
    assert {f"fuzzing:{name}" for name in fuzzing.READERS} == {name for name in PARTS if name.startswith("fuzzing")}
