"""The benchmarks of `humo bench`: speed, accuracy of recovery and captions, overhead, loading."""
