"""ONNX: graphs in fp32, fp16 and int8, checked against the reference."""
