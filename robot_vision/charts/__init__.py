"""Charts as SVG without scripts, and the pages that hold them."""
