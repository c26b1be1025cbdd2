"""Ways to make one descriptor of a feature map, one file each."""
