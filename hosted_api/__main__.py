"""`python path/to/hosted_api`, or `python -m hosted_api` in the pack's folder."""

import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:  # what Python looks in then is this folder, whose modules are no packages
        sys.path[0] = str(Path(__file__).resolve().parents[1])
    from flux_hotswap.hosted_api.run import main

    sys.exit(main(sys.argv[1:]))
