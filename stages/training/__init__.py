"""Training of the stages' own networks; no job imports it."""
