from dataclasses import replace

import numpy as np
from small import gentraj
from some_episodes import some

from gentraj.data import Episodes, inspect, problems, save_npz


def bad(e: Episodes, **changes) -> Episodes:
    return replace(e, validate=False, **changes)


def test_a_report_says_what_is_there():
    e = some([4, 2, 3], goals="within", extras=("qpos",))
    flags = {"terminated": np.isin(np.arange(9), [3]), "truncated": np.isin(np.arange(9), [3, 5])}
    e = replace(e, env='{"id": "PointMaze_UMaze-v3"}', name="mine", reward=np.arange(9.0), **flags)
    report = inspect(e)
    for line in ("dataset      mine", "environment  PointMaze_UMaze-v3", "episodes     3 of 9 steps in all",
                 "length       2 to 4, median 3, mean 3", "return       6 to 21, median 9, mean 12",
                 "1 truncated, 1 both, 1 neither", "entries [1, 2] of obs, a goal beside every observation",
                 "obs          12 x 3", "qpos         12 x 2", "problems     none"):
        assert line in report, line
    assert f"{e.act[:, 1].min():.5g} to" in report


def test_every_problem_is_reported_not_only_the_first(tmp_path):
    e = some([4, 3], extras=("qpos",))
    obs, act, reward, qpos = e.obs.copy(), e.act.copy(), e.reward.copy(), e.extras["qpos"].copy()
    obs[6, 1], act[2, 0], reward[[1, 5]], qpos[0] = np.nan, np.inf, np.nan, -np.inf
    worst = bad(e, obs=obs, act=act, reward=reward, extras={"qpos": qpos}, terminated=np.arange(7) == 1)
    assert len(list(problems(worst))) == 5
    report = inspect(save_npz(worst, tmp_path / "worst.npz"))
    for line in ("problems     5", "worst: episode 1, step 1: obs[1] is nan", "episode 0, step 2: act[0] is inf",
                 "episode 0, step 1: reward is nan", "(rows affected: 2)", "episode 0, step 0: qpos[0] is -inf",
                 "episode 0, step 1: terminated is true inside the episode"):
        assert line in report, line


def test_lost_steps_are_problems_and_problems_are_code_1(tmp_path, capsys):
    """D4RL's layout without next_observations: the last step of a trajectory that was cut off goes."""
    rows = np.arange(12, dtype=np.float32)
    np.savez(tmp_path / "d4rl.npz", observations=rows[:, None], actions=rows[:, None], rewards=rows,
             terminals=rows < 0, timeouts=rows % 4 == 3)
    assert gentraj("data", "inspect", tmp_path / "d4rl.npz") == 1
    printed = capsys.readouterr().out
    assert "problems     1\n  d4rl has no next observations: 3 trajectories that do not terminate lose" in printed
    assert "episodes     3 of 9 steps in all" in printed


def test_several_datasets_are_joined_as_training_joins_them(tmp_path, capsys):
    one, two = save_npz(some([4, 2]), tmp_path / "one.npz"), save_npz(some([3]), tmp_path / "two.npz")
    assert gentraj("data", "inspect", f"{one}+{two}") == 0
    printed = capsys.readouterr().out
    assert "dataset      one+two" in printed and "episodes     3 of 9 steps in all" in printed
    assert "episodes     2 of 6 steps in all" in inspect(one.rename(tmp_path / "a+b.npz"))  # a file of that name
    assert gentraj("data", "inspect", f"{two}+{one}") == 2
    assert "one.npz: no such file" in capsys.readouterr().err
