"""SAELens' format both ways: `read(folder)` gives a dictionary, `write(dictionary, folder)` what its classes load."""

from elute.dictionaries.saelens_read import read
from elute.dictionaries.saelens_write import write

__all__ = ["read", "write"]
