"""`python -m editmem` is the `editmem` command."""

from editmem.cli import app

app(prog_name="editmem")
