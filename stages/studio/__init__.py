"""Made-up people on film: procedural SMPL motions with labels, and a CPU renderer that turns them into videos."""
