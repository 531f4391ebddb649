"""Results of other estimators (WHAM, GVHMR and GEM, TRAM, AMASS-like files) as the fit of the tracks in a video.

`python -m stages.recovery.external FILE` prints what is in a result.
"""
