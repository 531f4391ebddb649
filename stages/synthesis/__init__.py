"""Synthetic videos of people: labelled procedural SMPL motions, scenes, and a CPU renderer."""

MIN_SECONDS = 1.5
"""Shortest motion that the generator accepts, seconds."""
