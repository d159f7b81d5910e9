"""A ROS 2 node that answers observations with the actions of any run: its folder, or one of the zoo.

    python examples/act_in_ros2.py zoo:pointmaze-umaze 0.1 0.05  # seconds of a control period, and of a decision

Publish observations on /observation, and for a run with goals first one on /goal, in the units of the run's data.
"""

import sys

import rclpy
import torch
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray

import gentraj
from gentraj.agents import Deadline


class Acting(Node):
    """Publishes the action for the latest observation, once in each period (seconds) in which one came."""

    def __init__(self, path: str, period: float, deadline: float | None = None):
        super().__init__("gentraj")
        run = gentraj.load(path)
        self.agent = run.agent(run.action_space(), deadline=Deadline(deadline) if deadline else None)
        self.agent.reset(seed=0)
        self.has_goals = bool(run.data.goal_dims)
        self.obs_1O = self.goal_1G = None
        self.actions = self.create_publisher(Float64MultiArray, "action", 1)
        self.create_subscription(Float64MultiArray, "goal", self.aim, 1)
        self.create_subscription(Float64MultiArray, "observation", self.see, 1)
        self.create_timer(period, self.act)

    def aim(self, goal: Float64MultiArray) -> None:
        self.goal_1G = torch.tensor([goal.data], dtype=torch.float32)

    def see(self, observation: Float64MultiArray) -> None:
        self.obs_1O = torch.tensor([observation.data], dtype=torch.float32)

    def act(self) -> None:
        if self.obs_1O is None or (self.has_goals and self.goal_1G is None):
            return
        act_1A = self.agent.act(self.obs_1O, self.goal_1G)
        self.obs_1O = None  # answered: a robot that sees nothing new is told nothing
        self.actions.publish(Float64MultiArray(data=act_1A[0].tolist()))


if __name__ == "__main__":
    rclpy.init()
    rclpy.spin(Acting(sys.argv[1], *map(float, sys.argv[2:])))
