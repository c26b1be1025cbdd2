"""What is seen in Rerun, live and afterwards: topics as entities on the timeline of the images' stamps."""
