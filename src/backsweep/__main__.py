"""`python -m backsweep` is the command line."""

from backsweep.cli.main import main

main()
