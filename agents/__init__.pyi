from .mpc import MPC, MPCConfig, WorldModelSimulator
from .planning.arrival import Arrival, ArrivalConfig
from .planning.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from .planning.plan_critic import PlanCritic, PlanCriticConfig
from .planning.planner import Planner
from .planning.sampler import PlannerConfig, Plans, PlanSampler, Trust
from .planning.tracker import PlanTracker
from .policies import POLICIES
from .policies.actor import Actor
from .policies.actor_critic import ActorCritic, ActorCriticConfig, ModelActor
from .policies.critic import Critic, CriticConfig, ValueConfig, advantage_weights, expectile, state_value
from .policies.policy import ActionModel, Policy, PolicyConfig, Transition
from .policies.scales import StateActionScales
from .policies.student import Student, StudentConfig
from .prior import log_prob, policy_prior, score
from .realtime.background import Deadline, SimulatedTime
from .realtime.planner import RealTimePlanner
from .realtime.policy import RealTimeActor
from .wrappers import NoisyAgent

__all__ = [
    "MPC", "POLICIES", "ActionModel", "Actor", "ActorCritic", "ActorCriticConfig", "Arrival", "ArrivalConfig",
    "Critic", "CriticConfig", "Deadline", "InverseDynamics", "InverseDynamicsConfig", "MPCConfig", "ModelActor",
    "NoisyAgent", "PlanCritic", "PlanCriticConfig", "PlanSampler", "PlanTracker",
    "Planner", "PlannerConfig", "Plans", "Policy", "PolicyConfig", "RealTimeActor", "RealTimePlanner",
    "SimulatedTime", "StateActionScales", "Student", "StudentConfig", "Transition", "Trust", "ValueConfig",
    "WorldModelSimulator", "advantage_weights", "expectile", "log_prob", "policy_prior", "score", "state_value",
]
