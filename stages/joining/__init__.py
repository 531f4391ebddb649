"""Long motions out of short ones: where one can go over into another, and how."""
