"""Images and clips for the language model: frozen towers, and the projector that learns to read them."""
