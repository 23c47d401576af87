"""`python -m haim_tf` runs the command line."""

import sys

from haim_tf.cli.main import main

sys.exit(main())
