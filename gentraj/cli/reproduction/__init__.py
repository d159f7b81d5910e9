"""What `gentraj reproduce` is made of: runs of cards, what came of them, and the page about it."""
