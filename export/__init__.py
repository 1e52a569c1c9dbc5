"""Out of Python: ONNX, TensorRT, ahead-of-time kernels, packages and server folders."""
