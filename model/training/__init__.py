"""Training loops, their configs, and resuming."""
