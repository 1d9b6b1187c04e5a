"""Pure geometry and arithmetic on arrays: the oracle that every kernel is held against."""
