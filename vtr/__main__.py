"""`python -m vtr`: the same as `vtr`."""

from vtr.cli import main

if __name__ == "__main__":
    main()
