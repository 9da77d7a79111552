"""What memories that add to the output of one module share."""
