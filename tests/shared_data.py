"""Where the development videos and mocap lie, if they are there."""

from pipeline import PROJECT_ROOT

SHARED_DATA = PROJECT_ROOT.parent / "shared" / "data"
