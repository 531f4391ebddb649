"""Text: caption rules on kinematics, describers, instructions, inflection, text-image weights."""
