"""Measures of tokenizers and language models on a split of a dataset."""
