"""The model that is edited: its structure, what is injected into it, and what one forward pass knows."""
