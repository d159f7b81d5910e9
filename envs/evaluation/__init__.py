"""Agents in environments: vectorised rollouts, scores, and replays in the true simulator."""
