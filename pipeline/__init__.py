"""From a config to a dataset: the checked chain, the two engines, commits, packing, audit and the command line."""

__version__ = "0.1.0"
