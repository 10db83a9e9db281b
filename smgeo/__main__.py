"""`python -m smgeo`: the command line."""

from smgeo.cli import main

main()
