"""Metrics and data sets."""
