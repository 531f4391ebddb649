"""Training instructions: drafts by task, wordings and their slots."""
