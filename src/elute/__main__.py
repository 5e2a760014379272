"""`python -m elute` is the program `elute`."""

from elute.cli.main import script

if __name__ == "__main__":
    script()
