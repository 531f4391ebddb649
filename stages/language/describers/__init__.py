"""Describers other than the rules (endpoint, CoCa), and the check of their sentences against the measured events."""
