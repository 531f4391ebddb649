"""Joining short motions into long ones: seam search, blending and captions."""
