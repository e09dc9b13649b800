"""The ``mlp-xp`` command: its options, its run folders and its output.

Each module in `commands` runs one or more commands. `training` contains the parts of ``mlp-xp
train``, `run_folder` reads and writes the files of a run, `report` writes HTML pages, and
`terminal` prints text.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from mlp_xp.cli.terminal import process
from mlp_xp.cli.terminal.lines import print_line

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    The status is 0 on success, 1 if the training diverged or a checked column exceeds a limit, 2
    for an error that the user can fix (printed on stderr as one line), 130 after Ctrl-C, and 141 if
    the reader of its output, such as ``head``, ends first. ``argv`` defaults to ``sys.argv[1:]``.
    """
    process.open_streams(is_process=argv is None)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(process.exits_on_ctrl_c(is_process=argv is None))
            start_time = process.start_time(is_process=argv is None)
            from mlp_xp.cli.commands import parse

            args = parse(argv)
            args.start_time = start_time
            args.argv = sys.argv[1:] if argv is None else argv
            pandas = process.without_pandas(is_process=argv is None)
            with process.starting("loading libraries"), pandas:
                run = args.load()
            # A command that saves nothing exits immediately on Ctrl-C.
            if args.saves:
                stack.close()
            from mlp_xp.cli.terminal.output import Output

            with process.repeats_lost_ctrl_c(is_process=argv is None):
                status: int = run(args, Output(args))
        sys.stdout.flush()
        process.exit_on_ctrl_c(is_process=argv is None)
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        process.discard_output()
        return 141  # The status of a program that SIGPIPE ends.
    except Exception as error:
        message = process.message_for_user(error)
        if message is None:
            raise
        print_line(f"mlp-xp: error: {message}", sys.stderr)
        return 2
