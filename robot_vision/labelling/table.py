"""The table of a folder that labels itself: images with numbers, as the format `labels_csv` reads them."""

TABLE = "labels.csv"
