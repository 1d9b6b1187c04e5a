"""The error that a user can act on."""


class UserError(Exception):
    """Say in one sentence what was found, what was expected and what to do."""
