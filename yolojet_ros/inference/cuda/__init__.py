"""CUDA device, kernels and graphs of the TensorRT backend."""
