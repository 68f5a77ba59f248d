"""python -m services.ingest api|worker|all|migrate"""

import sys

from services.ingest.main import run

run(sys.argv[1:])
