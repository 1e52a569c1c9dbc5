"""The fused path: the same networks with packed weights, one workspace and our own kernels, one file per device."""
