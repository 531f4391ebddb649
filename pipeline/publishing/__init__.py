"""Publishing a dataset: Hugging Face layout, dataset card, Energon index."""
