"""Motions from prompts, at once or step by step."""
