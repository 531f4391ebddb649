"""Rendering of motions: drawn skeletons, overlays on video, animations."""
