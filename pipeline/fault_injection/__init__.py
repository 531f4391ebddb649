"""Corrupted input and killed jobs, to show that nothing is lost or done twice."""
