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
from .policies import POLICIES, register
from .policies.actor import Actor
from .policies.bc import BC, BCConfig
from .policies.critic import Critic, CriticConfig, advantage_weights, expectile, state_value
from .policies.diffusion_ql import DiffusionQL, DiffusionQLConfig
from .policies.drol import DROL, DROLConfig
from .policies.fql import FQL, FQLConfig
from .policies.generators import GENERATORS
from .policies.gfp import GFP, GFPConfig
from .policies.idql import IDQL, IDQLConfig
from .policies.iql import IQL, IQLConfig
from .policies.meanflow_ql import MeanFlowQL, MeanFlowQLConfig
from .policies.policy import Policy, PolicyConfig, Scales, Transition
from .policies.student import Student, StudentConfig
from .policies.swift import Swift, SwiftConfig
from .policies.td3bc import TD3BC, TD3BCConfig
from .prior import log_prob, plan_prior, policy_prior, score
from .sb3 import SB3Policy

__all__ = [
    "BC", "DROL", "FQL", "GENERATORS", "GFP", "IDQL", "IQL", "MPC", "POLICIES", "TD3BC", "Actor", "Arrival",
    "ArrivalConfig", "BCConfig", "ConfidenceSwitch", "Critic", "CriticConfig", "DROLConfig", "Deadline",
    "DiffusionQL", "DiffusionQLConfig", "FQLConfig", "GFPConfig", "IDQLConfig", "IQLConfig", "InverseDynamics",
    "InverseDynamicsConfig", "MPCConfig", "MeanFlowQL", "MeanFlowQLConfig", "NoisyAgent", "PlanCritic",
    "PlanCriticConfig", "PlanSampler", "PlanTracker", "Planner", "PlannerConfig", "Plans", "Policy",
    "PolicyConfig", "RealTimePlanner", "SB3Policy", "Scales", "Student", "StudentConfig", "Swift", "SwiftConfig",
    "TD3BCConfig", "Transition", "Trust", "WorldModelSimulator", "advantage_weights", "expectile", "log_prob",
    "plan_prior", "policy_prior", "register", "score", "state_value",
]
