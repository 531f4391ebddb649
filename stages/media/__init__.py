"""Video and audio files: decoding, encoding, focal lengths from metadata."""
