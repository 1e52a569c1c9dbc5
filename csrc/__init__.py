"""The C++ and CUDA sources and their build; the CUDA ones travel with the package, for machines that compile them later."""
