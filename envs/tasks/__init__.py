"""The tasks: mazes, locomotion and manipulation."""
