"""Describers other than the rules (endpoint, CoCa), and how their sentences are checked against the measured events."""
