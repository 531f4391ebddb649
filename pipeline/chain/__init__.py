"""A job's settings, the checked order of its stages, and the work items that pass through them."""
