"""An environment that ends its process, exits, raises or hangs costs its episode and nothing else.

Nothing waits for seconds here but the time limit of an environment that hangs, and processes to end.
"""

import multiprocessing
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from misbehaving import STEP, Misbehaving, deadly

from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
from gentraj.envs.evaluation.stepping import EnvCrashed
from gentraj.envs.evaluation.vector import VectorEnvironment
from gentraj.envs.making import environment_factory
from gentraj.envs.recording.baselines import RandomAgent, WaypointController
from gentraj.randomness import fold

ROOT = Path(__file__).parents[2]
EPISODES = 5
SEEDS = [fold(0, i) for i in range(EPISODES)]
LIMIT = 4.0  # seconds: more than a step takes on a busy machine
TEXTS = {"kill": "it ended its process by SIGKILL", "fail": r"OSError: \[Errno 5\] the simulator is gone",
         "leave_politely": "SystemExit: no licence", "hang": "no answer within 4 s"}


def play(make_env, watch=None, **settings):
    return rollout(RandomAgent([-1, -1], [1, 1]), make_env, EPISODES, settings=RolloutSettings(**settings),
                   progress=False, record=True, watch=watch)


@pytest.fixture(scope="module")
def healthy():
    return play(Misbehaving)


def check_others(found, healthy, missing):
    """The episodes but the missing ones are those of healthy environments, bit for bit."""
    kept = [i for i in range(EPISODES) if i not in missing]
    assert found.seeds == [SEEDS[i] for i in kept] and len(found.faults) == len(missing)
    assert np.array_equal(found.returns, healthy.returns[kept])
    for one, i in zip(found.recorded, kept, strict=True):
        same = list(healthy.recorded)[i]
        assert np.array_equal(one.obs, same.obs) and np.array_equal(one.act, same.act)


@pytest.mark.parametrize("how", ["kill", "leave_politely", "hang"])
def test_a_fault_costs_its_episode_and_is_named(how, healthy, tmp_path):
    make = partial(Misbehaving, how, (SEEDS[1],), tmp_path / "mark")
    with pytest.raises(EnvCrashed) as error:
        play(make, workers=2, time_limit=LIMIT)
    check_others(error.value.finished, healthy, [1])
    assert error.match(rf"^Misbehaving, environment \d \(seed {SEEDS[1]}\), step {STEP}: "
                       rf"{TEXTS[how]} \(1 of 5 episodes did not finish\)$")
    assert multiprocessing.active_children() == []


def test_an_error_in_this_process_costs_its_episode_and_is_named(healthy):
    with pytest.raises(EnvCrashed, match=rf"environment \d \(seed {SEEDS[0]}\), step {STEP}: {TEXTS['fail']}") as error:
        play(partial(Misbehaving, "fail", (SEEDS[0], SEEDS[3])), num_envs=2)
    check_others(error.value.finished, healthy, [0, 3])


def test_a_rollout_in_which_nothing_finishes_stops():
    seeds = [fold(0, i) for i in range(1000)]
    begun = []
    agent = RandomAgent([-1, -1], [1, 1])
    agent.reset = lambda seed, mask_B, reset=agent.reset: (begun.append(seed), reset(seed, mask_B))
    with pytest.raises(EnvCrashed, match="no episode finished"):
        rollout(agent, partial(Misbehaving, "fail", tuple(seeds)), 1000,
                settings=RolloutSettings(num_envs=2), progress=False)
    assert len(begun) < 12


def test_scores_in_workers_are_those_in_this_process_bit_for_bit():
    factory = environment_factory("pointmaze-umaze", {"max_episode_steps": 25})
    one, other = (rollout(WaypointController(factory.maze, noise=0.5), factory, 6, 3,
                          RolloutSettings(5, workers=workers), progress=False, record=True)
                  for workers in (0, 2))
    assert np.array_equal(one.returns, other.returns) and np.array_equal(one.first_hit, other.first_hit)
    assert np.array_equal(one.recorded.obs, other.recorded.obs) and np.array_equal(one.recorded.act, other.recorded.act)
    assert one.recorded.env == other.recorded.env and one.tells_success == other.tells_success


@pytest.mark.parametrize(("make", "kind", "message"), [
    (deadly, EnvCrashed, "worker 0 cannot make the environment: .*with code 3"),
    (lambda: Misbehaving(), ValueError, "cannot be sent to a worker process .*environment_factory")])
def test_an_environment_that_cannot_be_made_in_a_worker_is_refused(make, kind, message):
    with pytest.raises(kind, match=message):
        VectorEnvironment(make, 2, workers=True)
    assert multiprocessing.active_children() == []


SCRIPT = """
import sys
from functools import partial
from pathlib import Path
sys.path[:0] = {paths}
if __name__ == "__main__":
    from gentraj.envs.evaluation.rollout import RolloutSettings, rollout
    from gentraj.envs.recording.baselines import RandomAgent
    from gentraj.randomness import fold
    from misbehaving import Misbehaving
    make = partial(Misbehaving, "hang", (fold(0, 0),), Path({mark!r}))
    rollout(RandomAgent([-1, -1], [1, 1]), make, 2, settings=RolloutSettings(workers=2, time_limit=1e6), progress=False)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_killed_evaluation_leaves_no_process_behind(tmp_path):
    """One worker hangs in an environment and the other waits for orders when their parent is killed."""
    mark, script = tmp_path / "mark", tmp_path / "script.py"
    script.write_text(SCRIPT.format(paths=[str(ROOT), str(Path(__file__).parent)], mark=str(mark)))
    parent = subprocess.Popen([sys.executable, script])
    until(lambda: mark.exists() and mark.read_text())
    group = [parent.pid, *children(parent.pid)]
    assert len(group) >= 3 and int(mark.read_text()) in group
    parent.kill()
    parent.wait()
    until(lambda: not any(alive(pid) for pid in group))


def children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in listed]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true) -> None:
    """Waits for an event. The test's own time limit ends it."""
    while not true():
        time.sleep(0.05)
