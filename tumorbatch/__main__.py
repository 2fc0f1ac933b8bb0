"""`python -m tumorbatch`: the same as the `tumorbatch` command."""

from tumorbatch.cli.main import main

if __name__ == "__main__":
    main()
