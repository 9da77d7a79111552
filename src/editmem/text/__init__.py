"""What token ids say, as tables of numbers: words, names, turns, without decoding."""
