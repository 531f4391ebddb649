"""Computation of quality scores: track quality, anatomy and physics."""
