"""Students of few sampling steps. To add a method, write one file and add one line here."""

from .consistency import Consistency, ConsistencyConfig
from .few_step import FewStep, FewStepConfig
from .reflow import Reflow, ReflowConfig

STUDENTS: dict[str, tuple[type[FewStepConfig], type[FewStep]]] = {
    "reflow": (ReflowConfig, Reflow),
    "consistency": (ConsistencyConfig, Consistency),
}
"""The students by the names of their methods: the class of the settings, and the class of the student."""

__all__ = ["STUDENTS", "Consistency", "ConsistencyConfig", "FewStep", "FewStepConfig", "Reflow", "ReflowConfig"]
