"""Copies of a dataset for others: Hugging Face layout, dataset card, Energon index."""
