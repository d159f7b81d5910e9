from .exploration import NoisyAgent
from .fallback import ConfidenceSwitch
from .mpc import MPC, MPCConfig, WorldModelSimulator
from .planning.arrival import Arrival, ArrivalConfig
from .planning.deadline import Deadline, RealTimePlanner
from .planning.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from .planning.plan_critic import PlanCritic, PlanCriticConfig
from .planning.planner import Planner
from .planning.planner_config import PlannerConfig
from .planning.sampler import Plans, PlanSampler
from .planning.tracker import PlanTracker
from .planning.trust import Trust
from .policies import POLICIES, PULLS, register
from .policies.action_model import ActionModel, ActionWindows
from .policies.actor import Actor
from .policies.critic import Critic, CriticConfig, ValueConfig, advantage_weights, expectile, state_value
from .policies.one_step import ModelPull, NoiseActor, NoiseActorConfig, OneStep, OneStepConfig, Pull, PullConfig
from .policies.policy import Policy, PolicyConfig
from .policies.scales import StateActionScales
from .policies.student import Student, StudentConfig
from .policies.transition import Transition
from .prior import log_prob, plan_prior, policy_prior, score
from .sb3 import SB3Policy

__all__ = [
    "MPC", "POLICIES", "PULLS", "ActionModel", "ActionWindows", "Actor", "Arrival", "ArrivalConfig",
    "ConfidenceSwitch", "Critic", "CriticConfig", "Deadline", "InverseDynamics", "InverseDynamicsConfig", "MPCConfig",
    "ModelPull", "NoiseActor", "NoiseActorConfig", "NoisyAgent", "OneStep", "OneStepConfig", "PlanCritic",
    "PlanCriticConfig", "PlanSampler", "PlanTracker", "Planner", "PlannerConfig", "Plans", "Policy", "PolicyConfig",
    "Pull", "PullConfig", "RealTimePlanner", "SB3Policy", "StateActionScales", "Student", "StudentConfig",
    "Transition", "Trust", "ValueConfig", "WorldModelSimulator", "advantage_weights", "expectile", "log_prob",
    "plan_prior", "policy_prior", "register", "score", "state_value",
]
