"""What the scores of a motion are computed from: tracking evidence, anatomy and physics."""
