"""The errors that a user can act on."""


class UserError(Exception):
    """Say in one sentence what was found, what was expected and what to do."""


class RunFailed(UserError):
    """The input was right, and the run did not reach its aim all the same."""
