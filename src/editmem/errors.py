"""The exceptions that editmem raises on purpose."""


class EditMemError(Exception):
    """Parent of every error that editmem raises.

    Examples:
        >>> import editmem
        >>> issubclass(editmem.SpecError, editmem.EditMemError)
        True
    """


class InvalidEditError(EditMemError, ValueError):
    """An edit, or a file of edits, that cannot be written. Nothing was changed.

    Examples:
        >>> import editmem
        >>> editmem.Edit("", "Sydney")
        Traceback (most recent call last):
            ...
        editmem.errors.InvalidEditError: prompt must not be empty, got ''
    """


class UnknownEditError(EditMemError, KeyError):
    """An edit id that is not among the active edits.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> editor = editmem.wrap(model, tokenizer=tokenizer)
        >>> editor.forget("au")
        Traceback (most recent call last):
            ...
        editmem.errors.UnknownEditError: no active edit has the id 'au'; see editor.edits
    """

    def __str__(self) -> str:
        return Exception.__str__(self)


class SpecError(EditMemError, ValueError):
    """A spec that names an unknown method or field, or holds a value out of range.

    Examples:
        >>> import editmem
        >>> editmem.MemoirSpec(steps=0)
        Traceback (most recent call last):
            ...
        editmem.errors.SpecError: steps must be between 1 and 10000, got 0
    """


class HostError(EditMemError, ValueError):
    """A model that cannot carry a memory, or whose state forbids what was asked.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> editor = editmem.wrap(model, tokenizer=tokenizer)
        >>> editmem.wrap(model, tokenizer=tokenizer)
        Traceback (most recent call last):
            ...
        editmem.errors.HostError: this model carries a memory already; use its editor, or editmem.unwrap(model) first
    """


class CheckpointError(EditMemError, ValueError):
    """A saved memory that is damaged, incomplete, too new, or belongs to another host.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> editmem.load(model, "tests")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        editmem.errors.CheckpointError: tests: editmem_config.json is missing; this is not a whole saved memory
    """


class LedgerError(EditMemError, ValueError):
    """A ledger that is damaged, is no ledger, does not fit, or cannot be written. Nothing was changed.

    Examples:
        >>> import editmem
        >>> model, tokenizer = editmem.tiny()
        >>> editmem.wrap(model, tokenizer=tokenizer, ledger="README.md")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        editmem.errors.LedgerError: README.md...
    """
