"""What the graph of XFeat takes and gives: where it is made and where it is run. Needs no torch."""

from __future__ import annotations

INPUT = "image"
# Names, and how many axes each has.
OUTPUTS = {"corners": 2, "reliability": 2, "descriptors": 3}
CELL = 8  # pixels of a cell of the coarse outputs, in each direction
MULTIPLE = 32  # of which height and width are multiples
SIZE = 64  # numbers of a descriptor
