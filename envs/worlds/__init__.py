"""World models as Gymnasium environments. Importing this package registers `gentraj/WorldModel-v0`."""

import gymnasium

gymnasium.register("gentraj/WorldModel-v0", "gentraj.runs.kinds.environment:make",
                   vector_entry_point="gentraj.runs.kinds.environment:make_vec",
                   disable_env_checker=True)
