"""Which backend an Engine uses: what can run here, how faithful it is, how fast."""
