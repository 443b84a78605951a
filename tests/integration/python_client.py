"""The Python client of clients/python, laid out for the tests as `pip install` would do it."""
import os
import shutil
import subprocess
import sys

SOURCE = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "..", "clients", "python"))


def lay_out(folder):
    """The package with fresh stubs below the folder."""
    shutil.copytree(os.path.join(SOURCE, "conclave"), os.path.join(folder, "conclave"))
    subprocess.run([sys.executable, "-B", os.path.join(SOURCE, "make_stubs.py"), folder], check=True)
