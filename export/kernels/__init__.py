"""The Triton kernels as cubins, with a header for C."""
