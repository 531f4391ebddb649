"""What changes a dataset that exists: removal, joining into long motions, near-duplicates."""
