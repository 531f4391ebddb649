"""Changes to an existing dataset: removal, joining clips into long motions, near-duplicates."""
