"""What a run remembers of its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from envs.evaluation.scores import DataReturns
from envs.making import environment_factory

from ..data import ContextConfig, Episodes
from ..normalize import Normalizer


@dataclass(frozen=True)
class DataFacts:
    """What a run must remember of its data to be used without it."""

    obs_dim: int
    act_dim: int
    context_dim: int
    goal_dims: tuple[int, ...]
    obs_keys: tuple[str, ...]
    env: str | None
    """Gymnasium's EnvSpec as JSON: of the run's `env_id`, else the data's."""
    recorded: str | None = None
    """That of the data, where they say it."""
    returns: tuple[DataReturns, ...] = ()
    """Of each dataset that was joined, in their order."""

    @classmethod
    def of(cls, episodes: Episodes, context: ContextConfig, env_id: str | None = None,
           returns: Sequence[DataReturns] = ()) -> DataFacts:
        """`returns` are those of the datasets that were joined, by default of `episodes` as they are."""
        env = environment_factory(env_id).spec_json if env_id else episodes.env
        return cls(episodes.obs_dim, episodes.act_dim, context.width(episodes), episodes.goal_dims, episodes.obs_keys,
                   env, episodes.env, tuple(returns or [DataReturns.of(episodes)]))


def normalizer(kind: Any, act_dim: int, data: DataFacts, episodes: Episodes | None) -> Normalizer:
    """Of observations, and of actions where `act_dim` says that there are; blank without episodes."""
    if episodes is None:
        return Normalizer.identity(data.obs_dim + act_dim)
    return Normalizer.fit(kind, [episodes.obs, episodes.act] if act_dim else [episodes.obs])
