"""python -m daas_dist is `daas run`."""

import sys

from daas_dist.cli import main
from daas_dist.system import utf8

if __name__ == "__main__":
    utf8.start()
    sys.exit(main(["run", *sys.argv[1:]]))
