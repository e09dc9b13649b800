"""The command ``mlp-xp``: what is typed is parsed before anything that computes is loaded."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mlp_xp.cli import start

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Default: what was typed.

    Returns
    -------
    int
        The exit status: 0; 1 for a training that diverged; 2 for what the user can mend, with one
        line on stderr; 130 after Ctrl-C.
    """
    try:
        with start.quits_at_ctrl_c(is_process=argv is None):
            began = start.process_began(is_process=argv is None)
            from mlp_xp.cli.commands import parse

            args = parse(argv)
            args.began = began
            run = args.load()
            # Where there is nothing to keep, Ctrl-C ends the process at once: an exception may
            # be raised in a library's own callback, which only prints it and goes on.
            status: int | None = None if args.keeps else run(args)
        if status is None:
            status = run(args)
        sys.stdout.flush()
        start.quit_at_ctrl_c(is_process=argv is None)
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        start.discard_output()
        return 1
    except Exception as error:
        message = start.message_for_user(error)
        if message is None:
            raise
        print(f"mlp-xp: error: {message}", file=sys.stderr)
        return 2
