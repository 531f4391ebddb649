"""Samples of a dataset's shards, one by one or in the batches of a training."""
