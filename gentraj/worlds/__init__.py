"""World models: the model, what it keeps of its data, and its errors in open loop."""
