"""The `humo bench` measurements: speed, accuracy of recovery and captions, overhead, loading."""
