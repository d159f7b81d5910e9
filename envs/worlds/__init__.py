"""A world model as Gymnasium environments."""
