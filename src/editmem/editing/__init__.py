"""How an edit is written: encoded, calibrated for, learned, checked and taken back."""
