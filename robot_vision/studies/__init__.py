"""What-if studies over recordings: worse images, filters over time, and what the network looks at."""
