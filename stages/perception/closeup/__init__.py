"""The closer look: keypoints and their depths from a crop of each person, by a head on the detector's own features."""
