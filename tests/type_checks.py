"""What the test-suite checks annotations with while it runs; named in pyproject.toml."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""A whole number is good enough where a float is asked for, as it is to mypy."""
