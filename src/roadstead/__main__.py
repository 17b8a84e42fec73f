"""``python -m roadstead``: the command line."""

from roadstead.cli.main import main

main()
