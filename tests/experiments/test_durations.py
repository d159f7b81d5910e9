"""How long cards take is said before they start: from their recorded times and what is done already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_reproduce import FAIR, HARD, record, write

from gentraj.experiments.cards import read_card
from gentraj.experiments.durations import Duration, described, durations
from gentraj.experiments.engine import kept
from gentraj.experiments.reproduce import Cards, place
from gentraj.experiments.results import CardResult, SeedResult, pooled


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("data"))


def cards(data: Path, out: Path, **changes: object) -> Cards:
    """A card of four trainings of 4 updates: two seeds on each of two datasets."""
    card = read_card(write(out, **changes))
    return Cards.of({"bc": card}, (data,), lambda *which: place(out, *which))


def took(card: Cards, seconds: float, steps: int) -> dict[str, CardResult]:
    """A result of one seed on the first dataset."""
    seed = SeedResult("", 3, "", steps, "", 0.0, (0.0, 0.0), (0.0,), seconds, {})
    return {"bc": CardResult(card.cards["bc"], {"fair": pooled("", None, (seed,))})}


def test_it_is_the_recorded_time_of_an_update_times_their_number(data: Path, tmp_path: Path) -> None:
    some = cards(data, tmp_path)
    [unknown] = durations(some, {})
    assert unknown == ("bc", 4, 0, None, None)
    assert durations(some, took(some, 7200.0, 8)) == [("bc", 4, 0, 4 * 3600.0, 4 * 3600.0)]
    assert durations(cards(data, tmp_path, minutes=30), {}) == [("bc", 4, 0, 7200.0, 7200.0)]
    measured = cards(data, tmp_path, minutes=30)
    assert durations(measured, took(measured, 40.0, 4))[0].seconds == 160.0  # what was measured is better known
    assert durations(measured, took(measured, 0.0, 4))[0].seconds == 7200.0  # without a log nothing was measured


def test_what_is_done_and_what_is_saved_is_not_left(data: Path, tmp_path: Path) -> None:
    some = cards(data, tmp_path, minutes=10)
    first, second, *_ = some.tasks
    kept(first.path(first.measures[0]), first.key(first.measures[0]), dict)
    (second.run / "step-00000001").mkdir(parents=True)  # of 4 updates
    [found] = durations(some, {})
    assert (found.done, found.left) == (1, pytest.approx(600 * (2 + 0.75)))
    lines = [*described([found, found._replace(name="other", seconds=None, left=None)], jobs=2)]
    assert lines == ["bc: 1 of 4 trainings are done; one takes about 10 min 0 s on one thread, all 0.7 h, of which 0.5 "
                     "h are left", "other: 1 of 4 trainings are done; how long one takes is not recorded",
                     "all cards whose time is recorded take 0.7 h, of which 0.5 h are left: about 0.2 h with 2 at a "
                     "time, and the evaluations besides"]


def test_a_single_training_takes_its_time_however_many_may_run() -> None:
    """One of 10 hours was said to take 1.2 hours with 8 at a time."""
    *_, last = described([Duration("a", 3, 2, 30 * 3600.0, 10 * 3600.0), Duration("b", 2, 2, 3600.0, 0.0)], jobs=8)
    assert last.startswith("all cards whose time is recorded take 31.0 h, of which 10.0 h are left: about 10.0 h")


@pytest.mark.parametrize(("changes", "message"), [
    ({"minutes": -1}, "minutes is -1"), ({"eval_every": -1}, "eval_every is -1"),
    ({"settings": {"training.eval_every": 2}}, "settings hold training.eval_every"),
    ({"data": [FAIR, HARD | {"published": {"score": 1.0, "updates": 0, "source": ""}}]}, "updates is 0"),
    ({"protocol": "d4rl-single-goal", "eval_every": 2}, "evaluations during a training have the protocol random-goal")])
def test_what_a_card_cannot_ask_for_is_refused(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_card(write(tmp_path, **changes))


def test_a_card_decides_when_its_trainings_are_evaluated(data: Path, tmp_path: Path) -> None:
    card = read_card(write(tmp_path))
    assert (card.eval_every, card.minutes, card.data[0].published) == (0, None, None)  # all may be left out
    asked = replace(card, eval_every=2).config(card.data[0], 3, (data,)).training
    assert (asked.eval_every, asked.eval_episodes) == (2, card.episodes)
    assert card.config(card.data[0], 3, (data,)).training.eval_every == 0
