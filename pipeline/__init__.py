"""From a config to a dataset: the checked chain, the two engines, commits, packing, audit and the command line."""

from pathlib import Path

__version__ = "0.1.0"
PROJECT_ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds the packages and `configs`; what Ray ships to a cluster."""
