"""Start one module of this folder in a bare interpreter (`python -I -S launch.py NAME`).

The folder is made a package under the private name `martlet_inside`, so that the same files run on the host and in a
sandbox's image, without importing the platform, and without taking a module name that user code might want.
"""

import importlib
import os
import sys
import types


def main() -> None:
    sys.dont_write_bytecode = True
    package = types.ModuleType("martlet_inside")
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules["martlet_inside"] = package
    importlib.import_module("martlet_inside." + sys.argv[1]).main()


if __name__ == "__main__":
    main()
