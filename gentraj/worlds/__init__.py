"""World models: the model, and what it keeps of its data."""
