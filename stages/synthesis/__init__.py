"""Synthetic people on film: procedural SMPL motions with labels, scenes, and a CPU renderer that makes videos of them."""
