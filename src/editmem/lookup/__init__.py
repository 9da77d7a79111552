"""Edits that are looked up before the host reads a prompt, by what it asks and what it shows: MemEIC and CoMEM."""
