"""``python -m mlp_xp``: the command ``mlp-xp``."""

from mlp_xp.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
