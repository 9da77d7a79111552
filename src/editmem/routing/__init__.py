"""Which edit a prompt asks for, and where in its answer the text is."""
