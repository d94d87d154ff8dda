"""Runs one script as one worker does under --legacy-api: ``runner.py PLACEMENT SCRIPT ARGS…``.

It stands for the launcher's worker bootstrap, and runs in the OneFlow runtime.
"""

import os
import runpy
import sys
import traceback


def main() -> None:
    placement, script = sys.argv[1], sys.argv[2]
    sys.argv = sys.argv[2:]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    from launcher.legacy import install

    install(placement)
    try:
        runpy.run_path(script, run_name="__main__")
    except BaseException as error:
        # OneFlow's exit barrier would wait for the other ranks for ever.
        code = error.code if isinstance(error, SystemExit) else 1
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stderr.flush()
        if code:
            os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
