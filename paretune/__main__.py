"""Entry point of `python -m paretune`, the same as the command `paretune`."""

from search.cli import main

if __name__ == "__main__":
    main()
