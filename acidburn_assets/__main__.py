"""`python -m acidburn_assets` is the same as `acidburn`."""

from acidburn_assets.commands import main

if __name__ == "__main__":
    main()
