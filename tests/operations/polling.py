"""python -m tests.operations.polling SECONDS services.NAME ROLE: a service that looks at its configuration so often."""

import runpy
import sys

from libs.common.config import ConfigFile


def main() -> None:
    seconds, module, *arguments = sys.argv[1:]
    ConfigFile.poll.__defaults__ = (float(seconds),)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
