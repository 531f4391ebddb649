"""Wordings of training instructions, grouped by task."""
