"""The same answers without torch: ONNX export, int8, gates, the bundle, its runtime and its report."""
