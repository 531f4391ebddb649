"""Motions as feature rows of a fixed layout, and back."""
