"""YAML that anybody may have written."""

from __future__ import annotations

from typing import Any

import yaml

from yolojet_ros.core.text import one_line


class _Loader(yaml.SafeLoader):
    """Refuses references: a few lines of them make a mapping that takes hours to merge."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError('it refers to parts of itself, by *')
        return super().compose_node(parent, index)


def read_yaml(text: str) -> Any:
    """
    Return what a YAML text says; bound its length before.

    :raises ValueError: if it is no YAML, or refers to parts of itself.
    """
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # the parser lets many kinds through, RecursionError among them
        reason = one_line(str(error), 200) or type(error).__name__
        raise ValueError(f'no YAML: {reason}') from error
