"""python -m daas_dist is `daas run`."""

import sys

from daas_dist.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
