"""The generator of a snapshot as files that run without this package: ONNX, and `torch.export`."""
