"""The lifter: from keypoints over time to SMPL in a level world, learned from motion capture seen by made-up cameras."""
