"""33 body landmarks of a person from a crop of the source's own pixels: BlazePose (arXiv 2006.10204), run by OpenVINO or torch."""
