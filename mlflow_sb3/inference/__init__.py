"""The policy that a served model runs, with numpy and onnxruntime alone."""
