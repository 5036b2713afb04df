"""What other software reads and writes: families of models, GGUF, Keras, ONNX."""
