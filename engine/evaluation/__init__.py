"""Metrics, data-set layouts, evaluation reports, temporal flicker and the downstream detector."""
