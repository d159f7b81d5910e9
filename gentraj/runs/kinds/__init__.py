"""What a run is, one file a kind, and the folder that keeps it."""
