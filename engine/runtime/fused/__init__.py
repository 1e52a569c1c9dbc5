"""The fused path: the same networks with packed weights, maps that stay and our own kernels, a file for each form."""
