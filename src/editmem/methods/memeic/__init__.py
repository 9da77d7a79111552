"""MemEIC (arXiv 2510.25798)."""
