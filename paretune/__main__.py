"""`python -m paretune`: the command line, as the command `paretune` runs it."""

from search.cli import main

if __name__ == "__main__":
    main()
