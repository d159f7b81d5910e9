"""World models: the model, its calibration, and how good it is in open loop."""
