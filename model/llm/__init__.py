"""The language model over text and motion steps, its vocabularies and training sequences."""
