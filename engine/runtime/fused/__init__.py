"""The fused path of a GPU: packed weights, static buffers, our own kernels. On a CPU it is the network's program."""
