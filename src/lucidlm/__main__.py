"""`python -m lucidlm`: the command line, without its script being on the path."""

from lucidlm.cli.main import main

main()
