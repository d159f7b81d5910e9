"""Gymnasium environments: tasks, data recipes, vectorised rollout, evaluation. Importing it registers those of ours."""

import gymnasium

gymnasium.register("gentraj/WorldModel-v0", "gentraj.world_env:make", vector_entry_point="gentraj.world_env:make_vec",
                   disable_env_checker=True)
