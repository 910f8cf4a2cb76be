"""ONNX files: written and read without the package of that name."""
