"""The Triton kernels as cubins with a header for C, and as a folder of source for the package `kernels`."""
