"""`python -m graphc` is the command `graphc`."""

from graphc.cli.main import main

if __name__ == "__main__":
    main()
