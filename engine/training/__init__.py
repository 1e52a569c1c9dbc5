"""Rain, data and the trainer."""
