"""The fused path: the same networks with packed weights, one workspace and our own kernels. One file per family and device."""
