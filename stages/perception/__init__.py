"""Perception in images: person detection, keypoints, camera rotation."""
