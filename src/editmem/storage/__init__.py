"""How state is kept: tables, answers, vectors, snapshots, and folders on disk."""
