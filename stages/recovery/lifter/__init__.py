"""Inference of the lifter: from keypoints over time to SMPL in a gravity-aligned world, with refinement."""
