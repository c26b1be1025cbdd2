"""Scene coordinates: where in the map each cell of the image lies, and the camera's pose from them."""
