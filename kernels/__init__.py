"""The fused operations, one folder each, behind one dispatch registry."""
