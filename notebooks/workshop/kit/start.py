"""Open the lessons in JupyterLab: `python start.py`, once `python install.py` has run."""

import sys

import install

if __name__ == "__main__":
    sys.exit(install.status_of(install.start, install.KIT, sys.argv[1:]))
