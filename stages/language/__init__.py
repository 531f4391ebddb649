"""Words: rules over kinematics, describers, instructions, inflection, text-image weights."""
