"""`python -m pluralis_lab.cli`."""

from pluralis_lab.cli import main

main()
