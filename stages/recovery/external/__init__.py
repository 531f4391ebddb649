"""Results of other estimators (WHAM, GVHMR and GEM, TRAM, AMASS-like files) as fits of the tracks of a video.

`python -m stages.recovery.external FILE` prints the content of a result.
"""
