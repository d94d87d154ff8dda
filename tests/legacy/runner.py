"""Runs one script as one worker does under --legacy-api: ``runner.py PLACEMENT SCRIPT ARGS…``.

It stands for the launcher's worker bootstrap, and runs in the OneFlow runtime.
LEGACY_TEST_BATCHES ends the script's loops over zipped batches after so many in all: the
tutorials train for 20 and 50 epochs, and are to be run as they are printed.
"""

import os
import runpy
import sys
import traceback
from pathlib import Path


def limited_zip(batches):
    left = iter(range(batches))

    def zip_(*columns):
        for _, row in zip(left, zip(*columns, strict=False), strict=False):
            yield row

    return zip_


def main():
    placement, script = sys.argv[1], sys.argv[2]
    sys.argv = sys.argv[2:]
    sys.path.insert(0, str(Path(script).resolve().parent))
    from launcher.legacy import install

    install(placement)
    limit = os.environ.get("LEGACY_TEST_BATCHES")
    names = {"zip": limited_zip(int(limit))} if limit else {}
    try:
        runpy.run_path(script, init_globals=names, run_name="__main__")
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            return
        # OneFlow's exit barrier would wait for the other ranks for ever.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
