"""Engine and Stream: the fastest way this machine has, with bounded latency."""
