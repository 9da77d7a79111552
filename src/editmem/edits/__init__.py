"""What an edit is, where edits are read from, and what has become of them."""
