"""Networks behind one small interface: ONNX Runtime on CPUs, TensorRT on GPUs."""
