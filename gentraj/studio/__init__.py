"""The studio: plans of trained runs in a browser, redrawn while start and goal are dragged (extra `studio`)."""
