"""Engines that run a chain: inline or Ray, with stages in isolated worker processes."""
