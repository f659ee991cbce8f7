"""`python -m lora_fetch`, from the pack's folder."""

import os
import sys

from flux_hotswap.lora_fetch.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
