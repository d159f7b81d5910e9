"""Students of few sampling steps. To add a method, write one file and add one line here."""

from .adversarial import Adversarial, AdversarialConfig
from .consistency import Consistency, ConsistencyConfig
from .few_step import FewStep, FewStepConfig
from .flow_map import FlowMap, FlowMapConfig
from .mean_flow import MeanFlow, MeanFlowConfig
from .progressive import Progressive, ProgressiveConfig
from .reflow import Reflow, ReflowConfig
from .shortcut import Shortcut, ShortcutConfig

STUDENTS: dict[str, tuple[type[FewStepConfig], type[FewStep]]] = {
    "reflow": (ReflowConfig, Reflow),
    "progressive": (ProgressiveConfig, Progressive),
    "consistency": (ConsistencyConfig, Consistency),
    "mean-flow": (MeanFlowConfig, MeanFlow),
    "shortcut": (ShortcutConfig, Shortcut),
    "adversarial": (AdversarialConfig, Adversarial),
}
"""The students by the names of their methods: the class of the settings, and the class of the student."""

__all__ = ["STUDENTS", "Adversarial", "AdversarialConfig", "Consistency", "ConsistencyConfig", "FewStep",
           "FewStepConfig", "FlowMap", "FlowMapConfig", "MeanFlow", "MeanFlowConfig", "Progressive",
           "ProgressiveConfig", "Reflow", "ReflowConfig", "Shortcut", "ShortcutConfig"]
