"""Cameras, keypoints as image rays, foot contacts, the ground and foot planting."""
