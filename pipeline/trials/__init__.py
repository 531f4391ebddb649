"""Inputs that are meant to go wrong, to try the pipeline with."""
