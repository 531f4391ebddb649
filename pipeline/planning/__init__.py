"""The dry run: sources probed, a sample of them measured, clips, hours, bytes and cost estimated."""
