"""What recovering a body from keypoints takes: cameras, facing, priors, the optimiser, contacts and the ground."""
