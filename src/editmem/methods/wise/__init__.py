"""WISE (arXiv 2405.14768)."""
