"""Run the policy of a saved agent with numpy and onnxruntime alone."""
