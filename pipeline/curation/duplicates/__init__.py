"""Near-duplicates: the same motion, or the same images of it, in samples of different sources."""
