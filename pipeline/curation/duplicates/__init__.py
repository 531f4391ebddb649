"""Near-duplicates: the same motion, or the same pictures of it, in samples of different sources."""
