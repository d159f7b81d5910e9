"""Hard constraints on trajectories, in environment units; a new one takes a class and a line in `CONSTRAINTS`."""

from .constraints import FULL_BUDGETS, QUICK_BUDGETS, Certificate, Constraints, SolverBudget
from .keepout import Blocks, Circle
from .kinds import TOLERANCE, Acceleration, Box, Constraint, Projection, Speed

CONSTRAINTS: dict[str, type[Constraint]] = {
    "box": Box, "circle": Circle, "blocks": Blocks, "speed": Speed, "acceleration": Acceleration,
    "projection": Projection}
"""The kinds of constraints by their names."""

__all__ = ["CONSTRAINTS", "FULL_BUDGETS", "QUICK_BUDGETS", "TOLERANCE", "Acceleration", "Blocks", "Box", "Certificate",
           "Circle", "Constraint", "Constraints", "Projection", "SolverBudget", "Speed"]
