"""How well bodies are recovered: from motion capture's keypoints and from films, end to end. See `pipeline.bench_recovery`."""
