"""One job from start to end: ingestion, retry, progress, signals, and the history of jobs."""
