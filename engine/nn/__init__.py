"""Modules: cells, memory, pyramid and losses, each over one fused operation."""
