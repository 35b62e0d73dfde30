"""The small model: its shape, its vocabulary and its warm start. Knows nothing of teachers."""
