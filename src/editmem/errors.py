"""The exceptions that editmem raises on purpose."""


class EditMemError(Exception):
    """Parent of every error that editmem raises."""


class InvalidEditError(EditMemError, ValueError):
    """An edit, or a file of edits, that cannot be written. Nothing was changed."""


class UnknownEditError(EditMemError, KeyError):
    """An edit id that is not among the active edits."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class SpecError(EditMemError, ValueError):
    """A spec that names an unknown method or field, or holds a value out of range."""


class HostError(EditMemError, ValueError):
    """A model that cannot carry a memory, or whose state forbids what was asked."""


class CheckpointError(EditMemError, ValueError):
    """A saved memory that is damaged, incomplete, too new, or belongs to another host."""


class LedgerError(EditMemError, ValueError):
    """A ledger that is damaged, is no ledger, does not fit, or cannot be written. Nothing was changed."""
