"""MEMOIR (arXiv 2506.07899)."""
