"""Agents in environments: vectorised rollouts, scores, and replay in the true simulator."""
