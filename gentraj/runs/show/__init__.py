"""Runs for others: reports, cards, samples, exported networks and the Hugging Face Hub."""
