"""Model formats of other software, in and out: GGUF, Keras, ONNX, transformers."""
