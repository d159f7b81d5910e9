"""Students of few sampling steps. To add a method, write one file and add one line here."""

from .adversarial import Adversarial, AdversarialConfig
from .consistency import Consistency, ConsistencyConfig
from .few_step import FewStep, FewStepConfig
from .mean_flow import MeanFlow, MeanFlowConfig
from .progressive import Progressive, ProgressiveConfig
from .reflow import Reflow, ReflowConfig

STUDENTS: dict[str, tuple[type[FewStepConfig], type[FewStep]]] = {
    "reflow": (ReflowConfig, Reflow),
    "progressive": (ProgressiveConfig, Progressive),
    "consistency": (ConsistencyConfig, Consistency),
    "mean-flow": (MeanFlowConfig, MeanFlow),
    "adversarial": (AdversarialConfig, Adversarial),
}

__all__ = ["STUDENTS", "Adversarial", "AdversarialConfig", "Consistency", "ConsistencyConfig", "FewStep",
           "FewStepConfig", "MeanFlow", "MeanFlowConfig", "Progressive", "ProgressiveConfig", "Reflow", "ReflowConfig"]
