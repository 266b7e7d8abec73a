"""The classifier: data, training, export, evaluation, the ONNX session and adaptive batching."""
