"""Audits of a dataset: statistics over its shards, SQL over its tables, a report, a page for one sample."""
