"""humo bench device: what one accelerator gives in a fixed number of minutes, part after part, each in a process of its own."""
