"""Cameras, keypoints as image rays, foot contacts, ground and planted feet."""
