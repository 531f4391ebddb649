"""Training of the lifter on motion capture seen by synthetic cameras and a simulated detector."""
