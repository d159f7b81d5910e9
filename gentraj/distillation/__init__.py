"""Students of few sampling steps. To add a method, write one file and add one line here."""

from .adversarial import Adversarial, AdversarialConfig
from .consistency import Consistency, ConsistencyConfig
from .few_step import FewStep, FewStepConfig
from .progressive import Progressive, ProgressiveConfig
from .reflow import Reflow, ReflowConfig

STUDENTS: dict[str, tuple[type[FewStepConfig], type[FewStep]]] = {
    "reflow": (ReflowConfig, Reflow),
    "progressive": (ProgressiveConfig, Progressive),
    "consistency": (ConsistencyConfig, Consistency),
    "adversarial": (AdversarialConfig, Adversarial),
}
"""The students by the names of their methods: the class of the settings, and the class of the student."""

__all__ = ["STUDENTS", "Adversarial", "AdversarialConfig", "Consistency", "ConsistencyConfig", "FewStep",
           "FewStepConfig", "Progressive", "ProgressiveConfig", "Reflow", "ReflowConfig"]
