"""A second look at each person found: keypoints and their depths from a crop, by a head on the detector's own features."""
