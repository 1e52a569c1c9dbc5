"""Measuring: equal conditions, interleaved rounds, the limits of the machine, and what changed between two results."""
