"""Public names of a package that are imported when they are first used.

So `import tumorbatch` is instant, worker processes stay small, and TensorFlow loads only when needed.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def attach(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Args:
        package: Its full name.
        where: {public name: "module:attribute", or "module" for a module itself}.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 - it becomes the package's own
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = where[name].partition(":")
        value = importlib.import_module(module)
        return getattr(value, attribute) if attribute else value

    return __getattr__
