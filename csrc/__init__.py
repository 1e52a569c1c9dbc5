"""The C++ and CUDA sources and their build; the headers travel with the package, to be compiled later where need be."""
