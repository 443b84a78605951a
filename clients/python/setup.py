"""Makes the messages from the published .proto files while the package is built; everything else is in pyproject.toml."""
import os
import sys

from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import make_stubs  # noqa: E402


class BuildWithStubs(build_py):
    def run(self):
        super().run()
        make_stubs.make(self.build_lib)


setup(cmdclass={"build_py": BuildWithStubs})
