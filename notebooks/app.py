"""The painter alone in the browser: `python -m notebooks.app`, as `make app` does.

What the pages' kernels import is imported in a process of its own, from which they are forked (`notebooks.warm`). It is
started first of all, so that it works while Voila is imported and the browser opens.
"""

import sys

from notebooks import warm

if __name__ == "__main__":
    warm.Provisioner.begin()
    from notebooks.served import main

    main(sys.argv[1:])
