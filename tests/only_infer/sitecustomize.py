"""Python runs this first if the folder is in PYTHONPATH: as if only the extra ``infer`` were installed.

``WASH_FL_ONLY`` names the modules that may be imported, with commas between; the standard library always may.
"""

import os
import sys
from importlib.abc import MetaPathFinder

ALLOWED = frozenset(os.environ["WASH_FL_ONLY"].split(","))


class Refusing(MetaPathFinder):
    """Comes before all other finders, and finds nothing."""

    def find_spec(self, name, path, target=None):
        """Raise for a module that is not installed; leave all others to the next finder."""
        top = name.partition(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)


sys.meta_path.insert(0, Refusing())
