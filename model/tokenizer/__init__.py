"""Motion features to codes and back."""
