"""Acts by a decision that `gentraj export` wrote, in a loop of one's own: ONNX Runtime and NumPy are all it needs.

    gentraj export runs/iql --out iql.onnx
    python examples/act_by_onnx.py iql.onnx Pendulum-v1 [EPISODES]   # any environment of Gymnasium, as an example

A program computes with whatever it is given: of NaN it makes NaN. The file has the ranges of the data that the agent
was trained on, and `Controller` compares with them what it is given. It acts by no observation that is not finite; for
one that is far from the data it acts, names the entries once, and sets `far`, so that the loop can do what is safe:
stop, slow down, or hand over to another controller.
"""

import json
import sys
import warnings

import numpy as np
import onnxruntime


class Controller:
    """Acts by the ONNX file of a decision for one observation."""

    def __init__(self, path, seed=0):
        self.session = onnxruntime.InferenceSession(path)
        self.shapes = {x.name: x.shape for x in self.session.get_inputs()}
        ranges = json.loads(self.session.get_modelmeta().custom_metadata_map["ranges"])
        self.ranges = {name: {key: np.array(values) for key, values in known.items()} for name, known in ranges.items()}
        self.rng = np.random.default_rng(seed)
        self.told = False
        self.reset()

    def reset(self):
        """Begins a new episode."""
        self.queue = []  # the actions of the last decision that are left
        self.far = False  # whether the last observation or goal was far from the data

    def act(self, obs, goal=None):
        """The action (A,) for an observation and, if the program takes one, a goal. Raises ValueError for NaN."""
        given = {"obs": np.asarray(obs, np.float32)}
        if goal is not None:
            given["goal"] = np.asarray(goal, np.float32)
        self.far = False
        for name, x in given.items():
            self._compare(name, x)
        if not self.queue:
            inputs = {name: x[None] for name, x in given.items()}
            if "noise" in self.shapes:  # anew for every decision
                inputs["noise"] = self.rng.standard_normal(self.shapes["noise"], dtype=np.float32)
            decided, = self.session.run(["act"], inputs)
            self.queue = list(decided[0])
        return self.queue.pop(0)

    def _compare(self, name, x):
        if not np.isfinite(x).all():
            raise ValueError(f"{name} is {x}; finite numbers are expected")
        known = self.ranges.get(name)
        if known is None:
            return
        x = x[: len(known["low"])]  # of a history the present observation, which is first
        entries = np.flatnonzero((x < known["least"]) | (x > known["most"]))
        if not len(entries):
            return
        self.far = True
        if not self.told:
            self.told = True
            i = entries[0]
            word = known["names"][i] if len(known["names"]) else f"{name}[{i}]"
            warnings.warn(f"{word} is {x[i]:.6g}, and was {known['low'][i]:.6g} to {known['high'][i]:.6g} in the data "
                          f"(entries that are far from them: {len(entries)})", stacklevel=3)


def main(path, env_id, episodes=5):
    """Plays episodes and prints their returns."""
    import gymnasium

    env, controller = gymnasium.make(env_id), Controller(path)
    for episode in range(int(episodes)):
        observation, _ = env.reset(seed=episode)
        controller.reset()
        earned, steps, far, done = 0.0, 0, 0, False
        while not done:
            observation, reward, terminated, truncated, _ = env.step(controller.act(observation))
            earned, steps, far = earned + reward, steps + 1, far + controller.far
            done = terminated or truncated
        print(f"episode {episode}: return {earned:.1f} in {steps} steps, {far} of them far from the data")


if __name__ == "__main__":
    main(*sys.argv[1:])
