"""CoMEM (arXiv 2505.17670): knowledge as a few embeddings in front of the prompt of a frozen model."""
