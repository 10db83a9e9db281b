"""`python -m smgeo` and `smgeo`: the command line."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is imported, which takes a second, is a sentence too."""
    try:
        from smgeo.cli import main as run
    except KeyboardInterrupt:
        print("smgeo: interrupted before it began; nothing was done", file=sys.stderr)
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
