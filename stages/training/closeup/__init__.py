"""Training of the closer look's head on rendered pictures."""
