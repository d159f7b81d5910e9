"""Gymnasium environments: tasks, data recipes, vectorised rollout, evaluation. Importing it registers those of ours."""

import gymnasium

gymnasium.register("gentraj/WorldModel-v0", "gentraj.runs.environment:make",
                   vector_entry_point="gentraj.runs.environment:make_vec",
                   disable_env_checker=True)
