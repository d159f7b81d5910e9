"""Figures and the report page: arrays in, one file out. They know no environment and no agent."""
