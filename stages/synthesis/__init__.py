"""Synthetic people on film: procedural SMPL motions with labels, scenes, and a CPU renderer that makes videos of them."""

MIN_SECONDS = 1.5
"""Shortest motion that the generator makes, seconds."""
