"""`python -m smgeo` and `smgeo`: the command line."""


def main() -> None:
    """Run the command line; Ctrl-C while it is imported, which takes a second, is a sentence too."""
    try:
        from smgeo.cli import main as run
    except KeyboardInterrupt:
        from smgeo.errors import end_before_start

        end_before_start()
    run()


if __name__ == "__main__":
    main()
