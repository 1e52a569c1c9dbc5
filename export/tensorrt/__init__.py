"""TensorRT engines, for this machine or for named GPUs."""
