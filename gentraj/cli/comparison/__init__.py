"""What `gentraj compare` is made of: entries, their work in processes, measures, a summary and its page."""
