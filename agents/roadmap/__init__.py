"""The roadmap of the data, and what agents remember of their ways on it."""
