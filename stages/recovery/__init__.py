"""SMPL from keypoints: the fitter protocol, optimisation, the learned lifter, imported results of other estimators."""
