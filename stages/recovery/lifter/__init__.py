"""The lifter at inference: keypoints over time to SMPL in a gravity-aligned world, with refinement."""
