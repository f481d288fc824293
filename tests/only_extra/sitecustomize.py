"""Python runs this first if the folder is in PYTHONPATH: as if only some packages were installed.

``WASH_FL_ONLY`` names the modules that may be imported, with commas between; the standard library always may.
"""

import os
import sys

ALLOWED = frozenset(os.environ["WASH_FL_ONLY"].split(","))
# Python's own too, with a name that differs between systems.
SYSTEM = "_sysconfigdata"


class Only:
    """A finder that finds nothing of what is not installed."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        """Ask the finder, for what is allowed."""
        top = name.partition(".")[0]
        if top in ALLOWED or top in sys.stdlib_module_names or top.startswith(SYSTEM):
            return self.finder.find_spec(name, path, target)
        return None

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = [Only(finder) for finder in sys.meta_path]
