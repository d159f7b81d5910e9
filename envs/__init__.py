"""Gymnasium environments: tasks, data recipes, vectorised rollout and evaluation."""
