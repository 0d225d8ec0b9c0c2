"""Charter of the room cli.

Owns: the `martlet` command: arguments, human output, exit codes.
Offers: `main(argv)`. Every command but `up` and `store` is a plain client of the management API, with the address and
credentials that the running platform left in its data folder.
Never: reads the store of a running platform, or does what only that may do.

Exit codes: 0 done · 1 the platform or the function said no · 2 wrong usage · 3 the platform is not running or out of reach ·
4 the deployment failed, what was deployed before still serves · 5 the platform could not start · 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from martlet.cli.arguments import parser
from martlet.cli.failure import Failure

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code and never raises."""
    try:
        arguments = parser().parse_args(argv)
    except SystemExit as ended:  # argparse has printed help or what was wrong
        return ended.code if isinstance(ended.code, int) else 2
    try:
        from martlet.cli import commands  # deferred: `martlet --help` must not wait for it

        code = commands.run(arguments)
        sys.stdout.flush()
        return code
    except Failure as failure:
        failure.show(sys.stderr)
        return failure.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # e.g. `martlet logs | head`: nobody reads on
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit does not fail again
        return 1
