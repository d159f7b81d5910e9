"""How good runs are, in environments and on data, and which checkpoint is the best."""
